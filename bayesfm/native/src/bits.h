// Random bits and keys from counters; see bits.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Numbers lo, ..., hi - 1 of the stream of a threefry key.
using RandomBits = void (*)(uint32_t key0, uint32_t key1, uint32_t* out, int64_t lo, int64_t hi);

// Keys first + lo, ..., first + hi - 1 of those that a threefry key is split into, two words each.
using RandomKeys = void (*)(uint32_t key0, uint32_t key1, uint32_t first, uint32_t* out, int64_t lo, int64_t hi);

}  // namespace bayesfm
