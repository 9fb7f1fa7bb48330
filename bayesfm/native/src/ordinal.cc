// Ordered classes under probit: log probabilities and their derivatives by the cut-points, as in
// bayesfm/likelihoods/ordinal.py and distributions.py, where the formulas are explained.
#include "lane_sums.h"
#include "row_sums.h"

namespace bayesfm::ISA {
namespace {

constexpr float kFar = 1e6f, kNarrow = 0.1f, kPhi0 = 0.39894228f, kLogPhi0 = -0.91893853f;
constexpr int kTerms = 5;  // of a class: B, B (b + B), A, A (a - A), A B

struct Interval {
  Real log_p, A, B;  // log of p = Phi(b) - Phi(a); phi(a) / p; phi(b) / p
};

inline Interval interval(Real a, Real b) {
  const Signed flip = a + b < 0.0f;
  const Real low = choose(flip, -b, a), high = choose(flip, -a, b);  // |low| <= high
  const Real width = high - low, middle = 0.5f * (low + high), abs_low = absolute(low);
  const Signed narrow = width * (1.0f + abs_low) < kNarrow, inside = (low < 0.0f) & ~narrow;
  Real near, far;
  mills_ratios(smaller(abs_low, real(kFar)), smaller(larger(high, real(0.0f)), real(kFar)), &near, &far);
  const Real at_low = kPhi0 * exp_minus(0.5f * low * low);
  const Real other = exp_minus(choose(inside, 0.5f * high * high, width * middle));
  // p inside; p / phi(low) otherwise, in a narrow interval from the expansion around the middle.
  constexpr float series[5] = {4.1666667e-2f, 0.16666667f, 0.5f, 1.0f, 1.0f};
  const Real drop = polynomial(series, -0.25f * width * (middle + low));  // phi(middle) / phi(low)
  const Real around = width * (1.0f + (middle * middle - 1.0f) * width * width * 0.041666667f) * drop;
  const Real beside = choose(narrow, around, near - other * far);
  const Real p = choose(inside, 1.0f - at_low * near - kPhi0 * other * far, beside);
  const Real inverse = 1.0f / p;
  const Real A = choose(inside, at_low, real(1.0f)) * inverse, B = choose(inside, kPhi0 * other, other) * inverse;
  const Real log_p = log_of(p) + choose(inside, real(0.0f), kLogPhi0 - 0.5f * low * low);
  return {log_p, choose(flip, B, A), choose(flip, A, B)};
}

}  // namespace

void sum_ordinal(const RowTerms& f, int64_t lo, int64_t hi, double* sums) {
  const int cuts = static_cast<int>(f.dim);
  LaneSums lanes(kTerms * (cuts + 1));
  double *const gradient = sums + 1, *const hessian = gradient + cuts;
  const auto row = [&](int64_t first) {
    const Real y = load_some(f.y, first, hi), eta = load_some(f.eta, first, hi), weight = load_some(f.weight, first, hi);
    Real lower = real(-kFar), upper = real(kFar);
    for (int c = 0; c < cuts; ++c) {
      lower = choose(y == static_cast<float>(c + 1), real(f.at[c]), lower);
      upper = choose(y == static_cast<float>(c), real(f.at[c]), upper);
    }
    const Real a = lower - eta, b = upper - eta;
    const Interval i = interval(a, b);
    const Signed seen = weight > 0.0f;
    const auto weighted = [&](Real x) { return choose(seen, weight * x, Real{}); };
    lanes.add_value(weighted(i.log_p));
    const Real B = weighted(i.B), A = weighted(i.A), B2 = B * (b + i.B), A2 = A * (a - i.A), AB = A * i.B;
    for (int c = 0; c <= cuts; ++c) {
      const Signed own = seen & (y == static_cast<float>(c));
      const auto add = [&](int t, Real x) { lanes.add(kTerms * c + t, choose(own, x, Real{})); };
      if (c < cuts) {
        add(0, B);
        add(1, B2);
      }
      if (c > 0) {
        add(2, A);
        add(3, A2);
      }
      if (c > 0 && c < cuts) add(4, AB);
    }
  };
  const auto add = [&](int i, double sum) {
    const int c = i / kTerms, t = i % kTerms;  // cut-point c is above class c, c - 1 below it
    if (t == 0 && c < cuts) gradient[c] += sum;
    if (t == 1 && c < cuts) hessian[c * cuts + c] -= sum;
    if (t == 2 && c > 0) gradient[c - 1] -= sum;
    if (t == 3 && c > 0) hessian[(c - 1) * cuts + c - 1] += sum;
    if (t == 4 && c > 0 && c < cuts) {
      hessian[c * cuts + c - 1] += sum;
      hessian[(c - 1) * cuts + c] += sum;
    }
  };
  in_runs(lo, hi, row, [&] { lanes.flush(add); });
  sums[0] += lanes.value();
}

}  // namespace bayesfm::ISA
