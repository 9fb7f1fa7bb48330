// Elementary functions of vectors of floats.
#pragma once

#include <cmath>
#include <cstdint>

#include "vector.h"

namespace bayesfm::ISA {

typedef V<float> Real;
typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t Signed __attribute__((vector_size(VECTOR_BYTES)));

// The same bits as another type, which is what a cast between vectors of one size does.
template <class Y, class X>
inline Y as(X x) {
  static_assert(sizeof(Y) == sizeof(X), "the same bits");
  return (Y)x;
}

inline Real real(float x) { return splat<float>(x); }
inline Real choose(Signed condition, Real yes, Real no) { return condition ? yes : no; }
inline Real larger(Real x, Real y) { return choose(x < y, y, x); }  // x where one of them is NaN
inline Real smaller(Real x, Real y) { return choose(x > y, y, x); }
inline Real absolute(Real x) { return as<Real>(as<Bits>(x) & 0x7fffffffu); }

inline bool any(Signed condition) {
  int32_t some = 0;
  for (int l = 0; l < W<float>; ++l) some |= condition[l];
  return some;
}

inline Real square_root(Real x) {
  for (int l = 0; l < W<float>; ++l) x[l] = std::sqrt(x[l]);
  return x;
}

// Horner's rule; the highest power first.
template <int N>
inline Real polynomial(const float (&coefficients)[N], Real x) {
  Real sum = real(coefficients[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) sum = sum * x + coefficients[i];
  return sum;
}

// log x for x >= 2^-126: x = 2^e (1 + d) with 1 + d in [sqrt(1/2), sqrt(2)). The polynomial is fitted to
// (log(1 + d) - d + d^2 / 2) / d^3, with an error of 7e-9 relative to d; d is exact. No division.
inline Real log_of(Real x) {
  constexpr float fitted[8] = {-0.0767086555f, 0.127855375f, -0.131569455f, 0.141976476f,
                               -0.166232731f,  0.200014459f, -0.250008295f, 0.333333282f};
  const Signed bits = as<Signed>(x);
  const Signed e = ((bits - 0x3f3504f3) >> 23);
  const Real exponent = __builtin_convertvector(e, Real), d = as<Real>(bits - (e << 23)) - 1.0f, d2 = d * d;
  return exponent * 0.69314718f + (d + d2 * (d * polynomial(fitted, d) - 0.5f));
}

// -log(1 - x) for 0 <= x <= 1/2, right for small x: 2 artanh(x / (2 - x)), the series to s^13, which leaves 2e-8.
inline Real minus_log_1m(Real x) {
  constexpr float odd[6] = {0.15384615f, 0.18181818f, 0.22222222f, 0.28571429f, 0.4f, 0.66666667f};
  const Real s = x / (2.0f - x), s2 = s * s;
  return 2.0f * s + s * s2 * polynomial(odd, s2);
}

// log(1 + x) for x > -1, right for small x: what rounding took from 1 + x is added to first order.
inline Real log_1p(Real x) {
  const Real s = 1.0f + x;
  return log_of(s) + (x - (s - 1.0f)) / s;
}

// exp(-x) for x >= 0; zero from 87 on. exp(-x) = 2^-n exp(r), |r| <= log(2) / 2.
inline Real exp_minus(Real x) {
  constexpr float series[7] = {1.3888889e-3f, 8.3333333e-3f, 4.1666667e-2f, 0.16666667f, 0.5f, 1.0f, 1.0f};
  const Real bounded = choose(x < 87.0f, x, real(87.0f));
  const Real shifted = bounded * 1.44269504f + 12582912.0f;  // rounds: the sum has no digits behind the point
  const Real n = shifted - 12582912.0f;
  const Real r = (n * 0.693359375f - bounded) + n * -2.12194440e-4f;
  const Signed power = as<Signed>(shifted) << 23;
  const Real y = as<Real>(as<Signed>(polynomial(series, r)) - power);
  return choose(x < 87.0f, y, choose(x == x, real(0.0f), x));
}

// 1 - exp(-x) for x >= 0, right for small x; q = exp(-x).
inline Real one_minus(Real x, Real q) {
  constexpr float series[7] = {1.9841270e-4f, -1.3888889e-3f, 8.3333333e-3f, -4.1666667e-2f, 0.16666667f, -0.5f, 1.0f};
  return choose(x < 0.3f, x * polynomial(series, x), 1.0f - q);
}

// Mills ratio (1 - Phi(x)) / phi(x) for 0 <= x <= 1e19, given 1 / ((x + 3) (x + 1)); see bayesfm/random/tails.py.
inline Real mills_ratio(Real x, Real inverse) {
  constexpr float fitted[11] = {0.000149195519f, 9.01308014e-05f, -0.00118710431f, -0.000916845219f, 0.0074857924f,
                                0.00291849336f,  -0.0569615519f,  0.113207803f,    -0.0411904658f,   -0.241956644f,
                                1.21836121f};
  return polynomial(fitted, (x - 3.0f) * (x + 1.0f) * inverse) * ((x + 3.0f) * inverse);
}

inline Real mills_ratio(Real x) { return mills_ratio(x, 1.0f / ((x + 3.0f) * (x + 1.0f))); }

// Both by one division; for 0 <= x, y <= 1e9.
inline void mills_ratios(Real x, Real y, Real* of_x, Real* of_y) {
  const Real a = (x + 3.0f) * (x + 1.0f), b = (y + 3.0f) * (y + 1.0f), inverse = 1.0f / (a * b);
  *of_x = mills_ratio(x, b * inverse);
  *of_y = mills_ratio(y, a * inverse);
}

}  // namespace bayesfm::ISA
