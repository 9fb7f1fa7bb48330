// Truncated normals by inversion, as in bayesfm/random/truncated_normal.py, where the formulas are explained.
#include "truncated.h"

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {
namespace {

constexpr int L = W<float>;
constexpr float kFar = 1e18f, kNarrow = 0.03f;

// The t with H_c(t) = E, given the Mills ratio at c and its inverse: Halley's method from the root of a quadratic.
inline Real solve(Real E, Real c, Real R_c, Real inverse) {
  const Real growth = larger(1.0f - c * R_c, real(0.0f));
  Real t = 2.0f * (E * R_c) / (1.0f + square_root(1.0f + 2.0f * growth * E));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Real R = mills_ratio(c + t);
    const Real error = c * t + 0.5f * t * t - log_of(R * inverse) - E;
    t = larger(t - error * R / (1.0f - 0.5f * error * (1.0f - R * (c + t))), real(0.0f));
  }
  return t;
}

inline Real quantile(Real u, Real v, Real mean, Real lower, Real upper) {
  const Real from = lower - mean, to = upper - mean;
  const Signed flip = absolute(to) < absolute(from);
  const Real a = smaller(larger(choose(flip, -to, from), real(-kFar)), real(kFar));
  const Real b = smaller(choose(flip, -from, to), real(kFar));
  const Real w = smaller(upper - lower, real(kFar));
  const Signed narrow = w < kNarrow, inside = (a < 0.0f) & ~narrow;
  const Real abs_a = absolute(a), abs_b = absolute(b);
  Real R_a, R_b;
  if (any(abs_a > 1e9f)) {
    R_a = mills_ratio(abs_a), R_b = mills_ratio(abs_b);
  } else {  // where b is larger than that, R_b is lost beside the square of b
    mills_ratios(abs_a, smaller(abs_b, real(1e9f)), &R_a, &R_b);
  }

  const Real c = larger(a, real(0.0f)), R_c = choose(a < 0.0f, real(1.25331414f), R_a), inverse = 1.0f / R_c;
  const Real slope = larger(a + 0.5f * w, 1e-14f / larger(w, real(1e-20f)));  // slope w may not be zero
  const Real hazard = c * w + 0.5f * w * w - log_of(R_b * inverse);
  const Real most = larger(choose(narrow, slope * w, hazard), real(0.0f)), beyond = exp_minus(most);
  const Real passed = u * one_minus(most, beyond);
  Real E = choose(passed < 0.5f, minus_log_1m(smaller(passed, real(0.5f))), -log_of(v + u * beyond));

  const Real tail_a = 0.39894228f * exp_minus(0.5f * abs_a * abs_a) * R_a;
  const Real tail_b = 0.39894228f * exp_minus(0.5f * abs_b * abs_b) * R_b;
  const Real below = v * tail_a + u * (1.0f - tail_b), above = v * (1.0f - tail_a) + u * tail_b;
  E = larger(choose(inside, -log_of(2.0f * smaller(below, above)), E), real(0.0f));

  const Real t = smaller(choose(narrow, E / slope, solve(E, c, R_c, inverse)), w);
  const Signed upwards = ~flip ^ (inside & (below < above));
  const Real x = choose(inside, mean, choose(flip, upper, lower)) + choose(upwards, t, -t);
  return choose(lower <= upper, smaller(larger(x, lower), upper), real(__builtin_nanf("")));
}

}  // namespace

void truncated_normals(const Truncated& f, int64_t lo, int64_t hi) {
  for (int64_t first = lo; first < hi; first += L) {
    const UniformPair p = uniform_pair(random_bits({f.key0, f.key1}, first));
    const Real x = quantile(p.u, p.v, load_some(f.mean, first, hi), load_some(f.lower, first, hi),
                            load_some(f.upper, first, hi));
    store_some(f.out, first, hi, x);
  }
}

}  // namespace bayesfm::ISA
