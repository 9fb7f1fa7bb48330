// Polya-Gamma variables PG(1, c) from counters; see polya_gamma.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Numbers lo, ..., hi - 1 of the stream of a threefry key.
struct PolyaGamma {
  uint32_t key0, key1;
  const float* c;
  float* out;
};
using PolyaGammas = void (*)(const PolyaGamma&, int64_t lo, int64_t hi);

}  // namespace bayesfm
