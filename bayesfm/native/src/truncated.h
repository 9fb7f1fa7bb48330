// Truncated normals from counters; see truncated.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// N(mean, 1) in [lower, upper]; numbers lo, ..., hi - 1 of the stream of a threefry key.
struct Truncated {
  uint32_t key0, key1;
  const float *mean, *lower, *upper;
  float* out;
};
using TruncatedNormals = void (*)(const Truncated&, int64_t lo, int64_t hi);

}  // namespace bayesfm
