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

inline Bits lane_numbers() {
  Bits lane;
  for (int l = 0; l < W<float>; ++l) lane[l] = static_cast<uint32_t>(l);
  return lane;
}

// 32 random bits for each of the indices first + lane; of the indices first, ..., first + W - 1 if nothing is said.
inline Bits random_bits(Key key, int64_t first, Bits lane = lane_numbers()) {
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

// sqrt(2) erfinv(u): Giles (2012), Approximating the erfinv function, GPU Computing Gems, single precision.
inline Real normal_quantile(Real u) {
  const Real w = -log_of((1.0f - u) * (1.0f + u));
  constexpr float centre[9] = {2.81022636e-08f,  3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                               -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
  constexpr float tail[9] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                             -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};
  const Signed central = w < 5.0f;
  const Real x = choose(central, w - 2.5f, square_root(w) - 3.0f);
  Real p = choose(central, splat<float>(centre[0]), splat<float>(tail[0]));
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = choose(central, splat<float>(centre[i]), splat<float>(tail[i])) + p * x;
  return 1.41421356f * (p * u);
}

// Standard normals, as jax.random makes them of bits, up to rounding.
inline Real normal_from(Bits bits) {
  // Uniform on [-1 + 2^-24, 1): 23 random bits in [1, 2).
  const Real unit = as<Real>((bits >> 9) | 0x3f800000u) - 1.0f;
  const float least = -0.99999994f;
  Real u = unit * (1.0f - least) + least;
  u = choose(u < least, splat<float>(least), u);
  return normal_quantile(u);
}

}  // namespace bayesfm::ISA
