// The door to XLA of the kernels of coordinate ascent.
#include "ffi.h"

namespace bayesfm {
namespace {

// Nanoseconds of the sums over an entry in rank k beyond those of a draw, and of a row's variance; measured with AVX-512.
double of_spreads(int64_t k) { return 2 + 0.06 * static_cast<double>(k * k); }

template <class T>
void check_spreads(Arguments& a, int64_t stride, int64_t rank) {
  const bool whole = stride * static_cast<int64_t>(sizeof(T)) % 64 == 0;
  a.expect(rank >= 0 && rank < 1 << 14 && whole && stride >= SpreadRow(static_cast<int>(rank)).size(),
           "rows of spreads must be multiples of 64 bytes and hold what their rank asks for");
}

// Of every operand, that of one member of the batch.
template <class T>
std::vector<T*> members(const Arguments& a, const std::vector<Batched<T>>& operands, int64_t member) {
  std::vector<T*> out;
  for (const auto& x : operands) out.push_back(a.at(x, member));
  return out;
}

template <class T>
ffi::Error spreads(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 2);
  const auto mean = a.in<T>(0, "the means", {kAny, kAny});
  const int64_t K = mean.dim(0), m = mean.dim(1);
  const auto cov = a.in<T>(1, "the covariances", {K, K, m});
  const auto out = a.out<T>(0, "the spreads", {m + 1, kAny});
  check_spreads<T>(a, out.dim(1), K - 1);
  if (!a.wrong().empty()) return refuse(a);
  const FillSpreads<T> fill = PICK(chosen.load(), fill_spreads<T>);
  constexpr int64_t kPart = 256;
  const int64_t parts = (m + kPart) / kPart;
  const double work = static_cast<double>(a.members() * (m + 1)) * of_spreads(K);
  run_parts(pool, a.members() * parts, work, [&](int64_t i) {
    const int64_t b = i / parts, lo = i % parts * kPart;
    fill({static_cast<int>(K - 1), m, out.dim(1), a.at(mean, b), a.at(cov, b), a.at(out, b)}, lo,
         std::min(m + 1, lo + kPart));
  });
  return ffi::Error::Success();
}

// Spreads and codes, alternating. The rank is that of the means, of which only the shape is read.
template <class T>
ffi::Error variances(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 2);
  const auto mean = a.in<T>(0, "the means", {kAny, kAny});
  const int64_t k = mean.dim(0) - 1;
  const auto out = a.out<T>(0, "the variances", {kAny});
  const int64_t n = out.dim(0);
  a.expect(a.num_args() > 2 && a.num_args() % 2 == 1, "spreads and codes are needed for every unit");
  std::vector<Batched<const T>> spread;
  std::vector<Batched<const int32_t>> code;
  for (size_t i = 1; i + 1 < a.num_args(); i += 2) {
    spread.push_back(a.in<T>(i, "the spreads", {kAny, i == 1 ? kAny : spread[0].dim(1)}));
    code.push_back(a.in<int32_t>(i + 1, "a code", {n}));
  }
  if (!spread.empty()) check_spreads<T>(a, spread[0].dim(1), k);
  if (!a.wrong().empty()) return refuse(a);
  const RowVariances<T> compute = PICK(chosen.load(), row_variances<T>);
  constexpr int64_t kPart = 4096;
  const int64_t parts = (n + kPart - 1) / kPart;
  const double work = static_cast<double>(a.members() * n) * of_spreads(k) * static_cast<double>(spread.size());
  run_parts(pool, a.members() * parts, work, [&](int64_t i) {
    const int64_t b = i / parts, lo = i % parts * kPart;
    const auto spread_b = members(a, spread, b);
    const auto code_b = members(a, code, b);
    compute({static_cast<int>(k), static_cast<int>(spread.size()), spread[0].dim(1), spread_b.data(), code_b.data(),
             a.at(out, b)}, lo, std::min(n, lo + kPart));
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error beliefs(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  constexpr size_t kFirst = 8;  // from here on a table, its spreads and a code for every other unit
  Arguments a(args, rets, 1);
  const FieldArguments<T> f(a);
  const auto theta = a.in<T>(7, "theta", {f.K, f.m});
  const auto theta_out = a.out<T>(0, "new theta", {f.K, f.m});
  const auto cov = a.out<T>(1, "the covariances", {f.K, f.K, f.m});
  const auto log_det = a.out<T>(2, "their determinants", {f.m});
  const auto r_out = a.out<T>(3, "new r", {f.omega.dim(0)});
  a.expect(a.num_args() > kFirst && (a.num_args() - kFirst) % 3 == 0, "a table, spreads and a code are needed for every unit");
  std::vector<Batched<const T>> table, spread;
  std::vector<Batched<const int32_t>> code;
  for (size_t i = kFirst; i + 2 < a.num_args(); i += 3) {
    table.push_back(a.in<T>(i, "a table", {kAny, i == kFirst ? kAny : table[0].dim(1)}));
    spread.push_back(a.in<T>(i + 1, "the spreads", {table.back().dim(0), i == kFirst ? kAny : spread[0].dim(1)}));
    code.push_back(a.in<int32_t>(i + 2, "a code", {f.row.dim(0)}));
  }
  if (!table.empty()) {
    Tables<T>::check_stride(a, table[0].dim(1), f.K - 1);
    check_spreads<T>(a, spread[0].dim(1), f.K - 1);
  }
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(theta_out, theta);
  a.start_from(r_out, f.r);
  const UpdateBeliefs<T> update = PICK(chosen.load(), update_beliefs<T>);
  over_features(pool, a.members(), f.ptr.data, 0, static_cast<int>(f.m), f.K * f.K / 8 + 8,
                of_sums(f.K) + of_spreads(f.K - 1), [&](int64_t b, int lo, int hi) {
    const auto table_b = members(a, table, b), spread_b = members(a, spread, b);
    const auto code_b = members(a, code, b);
    const Others<T> others{static_cast<int>(table.size()), table[0].dim(1), table_b.data(), code_b.data()};
    update({f.rows(a, b, others), spread[0].dim(1), spread_b.data(), f.prior(a, b), a.at(f.omega, b), a.at(r_out, b),
            a.at(theta_out, b), a.at(cov, b), a.at(log_det, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace bayesfm

#pragma GCC visibility push(default)
DEFINE(beliefs);
DEFINE(spreads);
DEFINE(variances);
#pragma GCC visibility pop
