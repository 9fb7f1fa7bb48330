// PG(b, c) for b >= 1 as a sum of four gammas and a shifted inverse Gaussian variable, as in bayesfm/random/gamma_sums.py,
// where the formulas are explained.
#include "gamma.h"

#include "rejection.h"

namespace bayesfm::ISA {
namespace {

constexpr int kGammas = 4;
constexpr float kStraight = 12.5f;

// What is left after the gammas, for b = 1: the shift; mean of the inverse Gaussian variable; mean over twice its shape.
struct Rest {
  Real shift, mean, spread;
};

// Below kStraight smooth functions of c^2, fitted in t = 2 (c / kStraight)^2 - 1 to 1e-8.
inline Rest rest_of(Real c) {
  constexpr float shift[7] = {4.54988536e-09f, -2.37188615e-08f, 1.20568629e-07f, -8.47518265e-07f,
                              8.96293659e-06f, -0.000120657241f, 0.00178012485f};
  constexpr float mean[7] = {-3.31859984e-09f, 9.15709908e-09f, 5.12310585e-08f, -1.28455531e-06f,
                             1.94377153e-05f,  -0.000322035165f, 0.0103470236f};
  constexpr float spread[7] = {7.76199869e-08f,  -4.7152335e-07f,  3.19189303e-06f, -2.82912115e-05f,
                               0.000298411556f, -0.00349945365f, 0.0529305376f};
  const Real t = c * c * (2.0f / (kStraight * kStraight)) - 1.0f;
  const Signed far = c >= kStraight;
  Rest r{polynomial(shift, t), polynomial(mean, t), polynomial(spread, t)};
  if (!any(far)) return r;
  // The whole sum is left: inverse Gaussian, but for terms of exp(-c).
  const Real e = exp_minus(c), second = 1.0f - 2.0f * e * (1.0f + c);
  const Real third = 1.0f - 2.0f * e * (1.0f + c * (1.0f + 0.33333333f * c)), centre = second * second / third;
  const Real half = 0.5f / c;
  r.shift = choose(far, half * ((1.0f - e) / (1.0f + e) - centre), r.shift);
  r.mean = choose(far, half * centre, r.mean);
  r.spread = choose(far, 2.0f * half * second / (centre * centre), r.spread);
  return r;
}

// 1 / (2 (pi (k + 1/2))^2 + c^2 / 2), k = 0, ..., 3, by two divisions; zero beyond kStraight.
inline void scales(Real c, Real* s) {
  constexpr float squares[kGammas] = {4.9348022f, 44.4132198f, 123.370055f, 241.805308f};
  const Signed drawn = c < kStraight;
  const Real bounded = choose(drawn, c, Real{}), half = 0.5f * bounded * bounded;
  for (int k = 0; k < kGammas; k += 2) {
    const Real a = squares[k] + half, b = squares[k + 1] + half, inverse = choose(drawn, 1.0f / (a * b), Real{});
    s[k] = b * inverse;
    s[k + 1] = a * inverse;
  }
}

// With mean and shape parameter mean / (2 spread): Michael, Schucany & Haas (1976), the smaller root without cancellation.
inline Real inverse_gaussian(Key normal, Key root, int64_t first, Real mean, Real spread) {
  const Real x = normal_from(random_bits(normal, first)), v = x * x * spread;
  const Real g = 1.0f + v + square_root(v * (v + 2.0f));
  const Real u = uniform_pair(random_bits(root, first)).u;
  return mean * choose(u * (1.0f + g) <= g, 1.0f / g, g);
}

}  // namespace

void gamma_sums(const GammaSum& f, int64_t lo, int64_t hi) {
  const Key key{f.key0, f.key1}, tries = derived(key, 0), rest = derived(key, 1);
  const Key normal = derived(rest, 0), root = derived(rest, 1);
  for (int64_t start = lo; start < hi; start += kTogether) {
    const int count = static_cast<int>(std::min<int64_t>(kTogether, hi - start));
    float gamma[kGammas][kTogether];
    for (int k = 0; k < kGammas; ++k) draw_gammas(tries, k * f.size + start, count, f.b + start, gamma[k]);
    for (int64_t first = start; first < start + count; first += W<float>) {
      const Real b = load_some(f.b, first, hi), c = absolute(load_some(f.c, first, hi));
      const Rest r = rest_of(c);
      Real s[kGammas], sum = b * r.shift + inverse_gaussian(normal, root, first, b * r.mean, r.spread / b);
      scales(c, s);
      for (int k = 0; k < kGammas; ++k)
        sum += s[k] * load_some(gamma[k], first - start, count);
      store_some(f.out, first, hi, sum);
    }
  }
}

}  // namespace bayesfm::ISA
