// Standard normals from counters; see normal.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Numbers lo, ..., hi - 1 of the stream of a threefry key.
using StandardNormals = void (*)(uint32_t key0, uint32_t key1, float* out, int64_t lo, int64_t hi);

}  // namespace bayesfm
