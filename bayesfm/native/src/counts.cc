// Negative binomial counts: log density and its derivatives by the log of the concentration r,
//
//   log (Gamma(y + r) / Gamma(r) / y!) - y log(1 + e^-psi) - r log(1 + e^psi),    psi = log mean - log r.
//
// The first term is the sum of log((r + j) / (1 + j)) over j < y: over all rows, how many have y > j is all that is needed.
#include <array>
#include <cmath>

#include "lane_sums.h"
#include "row_sums.h"

namespace bayesfm::ISA {
namespace {

constexpr int kTable = 1024;  // beyond, Stirling's series

// log Gamma(x) without its constant, and two derivatives, to 1e-14 from x = kTable on.
std::array<double, 3> stirling(double x) {
  const double digamma = std::log(x) - 1 / (2 * x) - 1 / (12 * x * x);
  const double trigamma = 1 / x + 1 / (2 * x * x) + 1 / (6 * x * x * x);
  return {(x - 0.5) * std::log(x) - x + 1 / (12 * x), digamma, trigamma};
}

// The first term and two derivatives by log r, of all rows.
void add_choose(const RowTerms& f, double r, int64_t lo, int64_t hi, double* sums) {
  static const double of_table = stirling(kTable + 1.0)[0];
  std::array<double, kTable + 1> weight{};  // by y, the last one of all that are as large or larger
  int most = 0;
  for (int64_t n = lo; n < hi; ++n) {
    if (!(f.weight[n] > 0)) continue;
    const int y = f.y[n] < kTable ? static_cast<int>(f.y[n]) : kTable;
    weight[y] += f.weight[n];
    most = std::max(most, y);
    if (y < kTable || f.y[n] == kTable) continue;
    const double end = f.y[n] + r, start = kTable + r;
    const auto above = stirling(end), below = stirling(start);
    const double first = above[1] - below[1], second = above[2] - below[2];
    sums[0] += f.weight[n] * (above[0] - below[0] - stirling(f.y[n] + 1.0)[0] + of_table);
    sums[1] += f.weight[n] * r * first;
    sums[2] += f.weight[n] * r * (first + r * second);
  }
  double larger = 0;  // weight of the rows with y > j
  for (int j = most - 1; j >= 0; --j) {
    larger += weight[j + 1];
    const double share = r / (r + j);
    sums[0] += larger * std::log((r + j) / (1 + j));
    sums[1] += larger * share;
    sums[2] += larger * share * (1 - share);
  }
}

}  // namespace

void sum_counts(const RowTerms& f, int64_t lo, int64_t hi, double* sums) {
  const double r = std::exp(static_cast<double>(f.at[0]));
  add_choose(f, r, lo, hi, sums);
  LaneSums lanes(2);
  const Real log_r = real(f.at[0]), R = real(static_cast<float>(r));
  const auto row = [&](int64_t first) {
    const Real weight = load_some(f.weight, first, hi), y = load_some(f.y, first, hi);
    const Real psi = load_some(f.eta, first, hi) - log_r;
    const Signed up = psi > 0.0f;
    const Real e = exp_minus(absolute(psi)), s = 1.0f + e, inverse = 1.0f / s;
    const Real tail = log_of(s) + (e - (s - 1.0f)) * inverse;  // log(1 + e)
    const Real above = tail + choose(up, psi, Real{}), below = tail + choose(up, Real{}, -psi);  // of psi, of -psi
    const Real yes = choose(up, inverse, e * inverse), no = choose(up, e * inverse, inverse);
    const Signed seen = weight > 0.0f;
    const auto weighted = [&](Real x) { return choose(seen, weight * x, Real{}); };
    lanes.add_value(weighted(-y * below - R * above));
    lanes.add(0, weighted(R * (yes - above) - y * no));
    lanes.add(1, weighted(R * (2.0f * yes - above) - (y + R) * yes * no));
  };
  in_runs(lo, hi, row, [&] { lanes.flush([&](int i, double sum) { sums[1 + i] += sum; }); });
  sums[0] += lanes.value();
}

}  // namespace bayesfm::ISA
