// Rotation of the factors, pair by pair, as in bayesfm/priors/rotation.py, where the formulas are explained.
#include "rotation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gram.h"
#include "real.h"

namespace bayesfm::ISA {
namespace {

// Of a pair (a, b), group by group: B = (S_aa - S_bb) / 2, C = S_ab, 1 / ((rate + S_aa) (rate + S_bb)).
template <class T>
struct Circle {
  const T *B, *C, *inverse, *degrees;
  int64_t num_groups;
};

inline V<float> log_1p_of(V<float> x) { return log_1p(x); }
inline V<double> log_1p_of(V<double> x) {
  for (int l = 0; l < W<double>; ++l) x[l] = std::log1p(x[l]);
  return x;
}

// Log density at x relative to 0; arrays are padded with zeros to whole registers.
template <class T>
T log_density(const Circle<T>& f, T x) {
  const T s = std::sin(T(0.5) * x), c = std::cos(T(0.5) * x), smallest = -1 + std::numeric_limits<T>::epsilon();
  V<T> acc{};
  for (int64_t g = 0; g < f.num_groups; g += W<T>) {
    const V<T> B = load<T>(f.B + g), B_minus_d = (T(2) * s) * (B * s - load<T>(f.C + g) * c);
    V<T> ratio = B_minus_d * (T(2) * B - B_minus_d) * load<T>(f.inverse + g);
    ratio = ratio < smallest ? splat<T>(smallest) : ratio;
    acc += load<T>(f.degrees + g) * log_1p_of(ratio);
  }
  return T(-0.5) * sum<T, W<T>>(acc);
}

// Half of the point that a slice step from 0 leads to.
template <class T>
T half_angle(const Circle<T>& f, const T* u, int64_t columns) {
  const T height = std::log1p(-u[0]), pi = T(3.14159265358979323846);
  T low = -pi * u[1], high = low + pi;
  for (int64_t t = 3; t < columns; ++t) {
    const T x = low + (high - low) * u[t];
    if (log_density(f, x) >= height) return T(0.5) * x;
    (x < 0 ? low : high) = x;
  }
  return 0;
}

// (x_a, x_b) <- (c x_a + s x_b, c x_b - s x_a) for `count` numbers.
template <class T>
void turn(T* a, T* b, int64_t count, int64_t step, T c, T s) {
  for (int64_t i = 0; i < count; ++i) {
    const T x = a[i * step], y = b[i * step];
    a[i * step] = c * x + s * y;
    b[i * step] = c * y - s * x;
  }
}

}  // namespace

template <class T>
void turn_pairs(const Turns<T>& f) {
  const int64_t k = f.k, G = f.num_groups, padded = (G + W<T> - 1) / W<T> * W<T>;
  const Aligned<T> of_circle(static_cast<size_t>(4 * padded + W<T>));
  T* const B = of_circle + 0;
  T *const C = B + padded, *const inverse = C + padded, *const degrees = inverse + padded;
  std::fill(B, B + 4 * padded, T(0));
  std::copy(f.degrees, f.degrees + G, degrees);
  const Circle<T> circle{B, C, inverse, degrees, G};
  for (int64_t i = 0; i < f.rounds * f.pairs; ++i) {
    const int64_t a = f.first[2 * i], b = f.first[2 * i + 1];
    for (int64_t g = 0; g < G; ++g) {
      const T* S = f.S + g * k * k;
      const T aa = S[a * k + a], bb = S[b * k + b];
      B[g] = T(0.5) * (aa - bb);
      C[g] = S[a * k + b];
      inverse[g] = 1 / ((f.rate + aa) * (f.rate + bb));
    }
    const T* u = f.u + i * f.columns;
    const T half = half_angle(circle, u, f.columns);
    const int quarter = static_cast<int>(T(4) * u[2]) & 3;
    const T turn_c[4] = {1, 0, -1, 0}, turn_s[4] = {0, 1, 0, -1};
    const T c0 = std::cos(half), s0 = std::sin(half);
    const T c = turn_c[quarter] * c0 - turn_s[quarter] * s0, s = turn_c[quarter] * s0 + turn_s[quarter] * c0;
    turn(f.R + a, f.R + b, k, k, c, s);
    for (int64_t g = 0; g < G; ++g) {
      T* S = f.S + g * k * k;
      turn(S + a, S + b, k, k, c, s);
      turn(S + a * k, S + b * k, k, 1, c, s);
    }
  }
}

template void turn_pairs<float>(const Turns<float>&);
template void turn_pairs<double>(const Turns<double>&);

}  // namespace bayesfm::ISA
