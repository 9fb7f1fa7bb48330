// S(x) = sum of c log(1 + e^x r^2) and its derivatives by x; see bayesfm/likelihoods/student_t.py.
#include <cmath>

#include "lane_sums.h"
#include "row_sums.h"

namespace bayesfm::ISA {

void sum_student_t(const RowTerms& f, int64_t lo, int64_t hi, double* sums) {
  LaneSums lanes(2);
  const Real scale = real(std::exp(f.at[0]));
  const auto row = [&](int64_t first) {
    const Real weight = load_some(f.weight, first, hi);
    const Real r = load_some(f.y, first, hi) - load_some(f.eta, first, hi);
    const Real q = scale * r * r, s = 1.0f + q, inverse = 1.0f / s, share = q * inverse;
    const Signed seen = weight > 0.0f;
    const auto weighted = [&](Real x) { return choose(seen, weight * x, Real{}); };
    lanes.add_value(weighted(log_of(s) + (q - (s - 1.0f)) * inverse));  // the second term: what rounding took from s
    lanes.add(0, weighted(share));
    lanes.add(1, weighted(share * inverse));
  };
  in_runs(lo, hi, row, [&] { lanes.flush([&](int i, double sum) { sums[1 + i] += sum; }); });
  sums[0] += lanes.value();
}

}  // namespace bayesfm::ISA
