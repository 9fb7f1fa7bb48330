// Random bits from counters: those of jax.random (threefry-2x32 with twenty rounds over the 64-bit index; Salmon et al. 2011,
// Parallel random numbers: as easy as 1, 2, 3). Number i depends on the key and on i alone.
#pragma once

#include <cstdint>

#include "real.h"

namespace bayesfm::ISA {

struct Key {
  uint32_t first, second;
};

// X: a number or a vector of them. x0 and x1 are replaced by what they are enciphered to.
template <class X>
inline void threefry(Key key, X& x0, X& x1) {
  constexpr int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key.first, key.second, key.first ^ key.second ^ 0x1BD11BDAu};
  x0 += keys[0];
  x1 += keys[1];
#pragma GCC unroll 5
  for (uint32_t i = 0; i < 5; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      x0 += x1;
      x1 = ((x1 << turns[i % 2][j]) | (x1 >> (32 - turns[i % 2][j]))) ^ x0;
    }
    x0 += keys[(i + 1) % 3];
    x1 += keys[(i + 2) % 3] + i + 1;
  }
}

// jax.random.fold_in, and number i of jax.random.split.
inline Key derived(Key key, uint32_t i) {
  Key next{0, i};
  threefry(key, next.first, next.second);
  return next;
}

// 32 random bits for each of the indices first, ..., first + W - 1.
inline Bits random_bits(Key key, int64_t first) {
  Bits lane;
  for (int l = 0; l < W<float>; ++l) lane[l] = static_cast<uint32_t>(l);
  const uint32_t low = static_cast<uint32_t>(first), high = static_cast<uint32_t>(first >> 32);
  Bits x1 = lane + low;
  Bits x0 = (Bits{} + high) - as<Bits>(Signed(x1 < low));  // a carry adds one
  threefry(key, x0, x1);
  return x0 ^ x1;
}

// Uniforms u in (0, 1) and 1 - u, both right to a relative rounding error.
struct UniformPair {
  Real u, v;
};

inline UniformPair uniform_pair(Bits bits) {
  constexpr float scale = 1.0f / 4294967296.0f;
  return {(__builtin_convertvector(bits, Real) + 0.5f) * scale, (__builtin_convertvector(~bits, Real) + 0.5f) * scale};
}

}  // namespace bayesfm::ISA
