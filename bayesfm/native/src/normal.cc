// Standard normals from counters: the bits of jax.random (threefry-2x32 with twenty rounds over the 64-bit index; Salmon et al.
// 2011, Parallel random numbers: as easy as 1, 2, 3), turned into uniforms and normals as jax.random does, up to rounding.
//
// Number i depends on the key and on i alone: neither threads nor vector widths show.
#include "normal.h"

#include <cmath>
#include <cstring>

#include "vector.h"

namespace bayesfm::ISA {
namespace {

constexpr int L = W<float>;
typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t Signed __attribute__((vector_size(VECTOR_BYTES)));
typedef V<float> Real;

template <class Y, class X>
inline Y as(X x) {
  Y y;
  static_assert(sizeof(x) == sizeof(y), "the same bits");
  std::memcpy(&y, &x, sizeof(y));
  return y;
}

inline Real choose(Signed condition, Real yes, Real no) { return condition ? yes : no; }

inline Bits rotate(Bits x, int by) { return (x << by) | (x >> (32 - by)); }

inline Bits threefry(uint32_t key0, uint32_t key1, Bits x0, Bits x1) {
  constexpr int turns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
  x0 += keys[0];
  x1 += keys[1];
#pragma GCC unroll 5
  for (uint32_t i = 0; i < 5; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      x0 += x1;
      x1 = rotate(x1, turns[i % 2][j]) ^ x0;
    }
    x0 += keys[(i + 1) % 3];
    x1 += keys[(i + 2) % 3] + i + 1;
  }
  return x0 ^ x1;
}

// log x for 2^-126 <= x <= 1: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)), whose series in
// s^2 <= 0.0295 ends below 4e-9 relative after s^9.
inline Real log_of(Real x) {
  const Signed bits = as<Signed>(x);
  Signed e = ((bits - 0x3f3504f3) >> 23);
  const Real m = as<Real>(bits - (e << 23));
  const Real s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  const Real series = ((0.22222222f * s2 + 0.28571429f) * s2 + 0.4f) * s2 + 0.66666667f;
  const Real exponent = __builtin_convertvector(e, Real);
  // log m = 2 s + s^3 series; m - 1 is exact.
  return exponent * 0.69314718f + (2.0f * s + s * s2 * series);
}

inline Real square_root(Real x) {
  for (int l = 0; l < L; ++l) x[l] = std::sqrt(x[l]);
  return x;
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

}  // namespace

void standard_normals(uint32_t key0, uint32_t key1, float* out, int64_t lo, int64_t hi) {
  Bits lane;
  for (int l = 0; l < L; ++l) lane[l] = static_cast<uint32_t>(l);
  for (int64_t first = lo; first < hi; first += L) {
    const uint32_t low = static_cast<uint32_t>(first), high = static_cast<uint32_t>(first >> 32);
    const Bits x1 = lane + low;
    const Bits x0 = (Bits{} + high) - as<Bits>(Signed(x1 < low));  // a carry adds one
    const Bits bits = threefry(key0, key1, x0, x1);
    // Uniform on [-1 + 2^-24, 1): 23 random bits in [1, 2).
    const Real unit = as<Real>((bits >> 9) | 0x3f800000u) - 1.0f;
    const float least = -0.99999994f;
    Real u = unit * (1.0f - least) + least;
    u = choose(u < least, splat<float>(least), u);
    const Real x = normal_quantile(u);
    if (hi - first >= L)
      store<float>(out + first, x);
    else
      for (int64_t l = 0; l < hi - first; ++l) out[first + l] = x[l];
  }
}

}  // namespace bayesfm::ISA
