// The door to XLA of the kernels that hyperparameters and the parameters of likelihoods read.
#include "ffi.h"

namespace bayesfm {
namespace {

template <class T>
ffi::Error moments(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 2);
  const auto theta = a.in<T>(0, "theta", {kAny, kAny});
  const int64_t K = theta.dim(0), m = theta.dim(1);
  const auto group = a.in<int32_t>(1, "group", {m});
  const auto mean = a.out<T>(0, "mean", {K, kAny});
  const int64_t G = mean.dim(1);
  const auto scatter = a.out<T>(1, "scatter", {K, G});
  if (!a.wrong().empty()) return refuse(a);
  const GroupMoments<T> gather = PICK(chosen.load(), group_moments<T>);
  const auto row = [&](int64_t i) {
    const int64_t b = i / K, k = i % K;
    gather(a.at(theta, b) + k * m, a.at(group, b), m, G, a.at(mean, b) + k * G, a.at(scatter, b) + k * G);
  };
  run_parts(pool, a.members() * K, 0.3 * static_cast<double>(a.members() * K * m), row);
  return ffi::Error::Success();
}

// Features of one group, some thousands at a time: what they add up to does not depend on the number of threads.
template <class T>
ffi::Error scatter(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  constexpr int64_t kTogether = 1 << 14;
  Arguments a(args, rets, 2);
  const auto theta = a.in<T>(0, "theta", {kAny, kAny});
  const int64_t k = theta.dim(0) - 1, m = theta.dim(1);
  a.expect(k >= 0, "theta needs a row for w");
  const auto group = a.in<int32_t>(1, "group", {m});
  const auto centre = a.in<T>(2, "centre", {k, kAny});
  const int64_t G = centre.dim(1);
  const auto out = a.out<T>(0, "the scatter", {G, k, k});
  if (!a.wrong().empty()) return refuse(a);
  std::vector<Scatter<T>> parts;
  std::vector<std::pair<int64_t, int64_t>> owner;  // member, group
  for (int64_t b = 0; b < a.members(); ++b) {
    std::fill(a.at(out, b), a.at(out, b) + out.size, T(0));
    const int32_t* of = a.at(group, b);
    for (int64_t lo = 0, hi; lo < m; lo = hi) {
      if (of[lo] < 0 || of[lo] >= G) return ffi::Error::InvalidArgument("bayesfm kernels: a group is out of range");
      hi = std::min<int64_t>(std::upper_bound(of + lo, of + m, of[lo]) - of, lo + kTogether);
      parts.push_back({a.at(theta, b) + m, a.at(centre, b) + of[lo], k, m, G, lo, hi, nullptr});
      owner.emplace_back(b, of[lo]);
    }
  }
  std::vector<double> sums(parts.size() * static_cast<size_t>(k * k));
  for (size_t i = 0; i < parts.size(); ++i) parts[i].out = sums.data() + static_cast<int64_t>(i) * k * k;
  const GroupScatter<T> add = PICK(chosen.load(), group_scatter<T>);
  const double work = 0.06 * static_cast<double>(a.members() * m * k * (k + 8));
  run_parts(pool, static_cast<int64_t>(parts.size()), work, [&](int64_t i) { add(parts[i]); });
  for (size_t i = 0; i < parts.size(); ++i) {
    T* S = a.at(out, owner[i].first) + owner[i].second * k * k;
    for (int64_t f = 0; f < k; ++f)
      for (int64_t g = 0; g < k; ++g) S[f * k + g] += static_cast<T>(parts[i].out[std::min(f, g) * k + std::max(f, g)]);
  }
  return ffi::Error::Success();
}

template <class T>
ffi::Error shrinkage(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto c = a.in<T>(0, "c", {kAny});
  const int64_t m = c.dim(0);
  const auto d = a.in<T>(1, "d", {m});
  const auto group = a.in<int32_t>(2, "group", {m});
  const auto from = a.in<T>(3, "from", {kAny});
  const int64_t G = from.dim(0);
  const auto at = a.in<T>(4, "at", {G});
  const auto out = a.out<T>(0, "the sums", {kScaleSums, G});
  if (!a.wrong().empty()) return refuse(a);
  const ScaleSums<T> add = PICK(chosen.load(), scale_sums<T>);
  run_parts(pool, a.members(), 1.5 * static_cast<double>(a.members() * m), [&](int64_t b) {
    add({a.at(c, b), a.at(d, b), a.at(group, b), m, G, a.at(from, b), a.at(at, b), a.at(out, b)});
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error rotation(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 2);
  const auto R = a.in<T>(0, "R", {kAny, kAny});
  const int64_t k = R.dim(0);
  const auto S = a.in<T>(1, "S", {kAny, k, k});
  const int64_t G = S.dim(0);
  const auto degrees = a.in<T>(2, "degrees", {G});
  const auto rate = a.in<T>(3, "rate", {});
  const auto pairs = a.in<int32_t>(4, "pairs", {kAny, kAny, 2});
  const auto u = a.in<T>(5, "u", {pairs.dim(0), pairs.dim(1), kAny});
  a.expect(R.dim(1) == k, "R must be square");
  const auto R_out = a.out<T>(0, "new R", {k, k});
  const auto S_out = a.out<T>(1, "new S", {G, k, k});
  a.expect(u.dim(2) >= 3, "u must have three columns at least");
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(R_out, R);
  a.start_from(S_out, S);
  const TurnPairs<T> turn = PICK(chosen.load(), turn_pairs<T>);
  const int64_t turns = pairs.dim(0) * pairs.dim(1);
  const double work = static_cast<double>(a.members() * turns) * (200 + static_cast<double>(G * (30 + 4 * k)));
  run_parts(pool, a.members(), work, [&](int64_t b) {
    turn({k, G, pairs.dim(0), pairs.dim(1), u.dim(2), a.at(degrees, b), *a.at(rate, b), a.at(pairs, b), a.at(u, b),
          a.at(R_out, b), a.at(S_out, b)});
  });
  return ffi::Error::Success();
}

// Sums over the rows, part by part and then over the parts in their order, whoever worked them off. The value is returned as
// two floats, of which the second is what the first has rounded off.
ffi::Error row_sums(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, SumRows add, double nanoseconds,
                    int64_t num_parameters) {
  constexpr int64_t kPart = 8192;
  Arguments a(args, rets, 1);
  const auto y = a.in<float>(0, "y", {kAny});
  const int64_t n = y.dim(0);
  const auto weight = a.in<float>(1, "weight", {n});
  const auto eta = a.in<float>(2, "eta", {n});
  const auto at = a.in<float>(3, "the parameters", {num_parameters});
  const int64_t dim = at.dim(0), size = 1 + dim + dim * dim, parts = (n + kPart - 1) / kPart;
  a.expect(dim >= 1, "there must be a parameter");
  const auto value = a.out<float>(0, "the value", {2});
  const auto gradient = a.out<float>(1, "the gradient", {dim});
  const auto hessian = a.out<float>(2, "the Hessian", {dim, dim});
  if (!a.wrong().empty()) return refuse(a);
  std::vector<double> sums(a.members() * parts * size);
  run_parts(pool, a.members() * parts, nanoseconds * static_cast<double>(a.members() * n), [&](int64_t i) {
    const int64_t b = i / parts, lo = i % parts * kPart;
    add({a.at(y, b), a.at(weight, b), a.at(eta, b), a.at(at, b), dim}, lo, std::min(n, lo + kPart), &sums[i * size]);
  });
  for (int64_t b = 0; b < a.members(); ++b) {
    std::vector<double> total(size);
    for (int64_t i = 0; i < parts * size; ++i) total[i % size] += sums[b * parts * size + i];
    float* const v = a.at(value, b);
    v[0] = static_cast<float>(total[0]);
    v[1] = static_cast<float>(total[0] - v[0]);
    for (int64_t i = 0; i < dim; ++i) a.at(gradient, b)[i] = static_cast<float>(total[1 + i]);
    for (int64_t i = 0; i < dim * dim; ++i) a.at(hessian, b)[i] = static_cast<float>(total[1 + dim + i]);
  }
  return ffi::Error::Success();
}

ffi::Error ordinal(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return row_sums(pool, args, rets, PICK(chosen.load(), sum_ordinal), 6, kAny);
}

ffi::Error student_t(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return row_sums(pool, args, rets, PICK(chosen.load(), sum_student_t), 1, 1);
}

ffi::Error counts(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return row_sums(pool, args, rets, PICK(chosen.load(), sum_counts), 3, 1);
}

}  // namespace
}  // namespace bayesfm

#pragma GCC visibility push(default)
DEFINE(moments);
DEFINE(rotation);
DEFINE(scatter);
DEFINE(shrinkage);
DEFINE_AS(f32, counts, bayesfm::counts);
DEFINE_AS(f32, ordinal, bayesfm::ordinal);
DEFINE_AS(f32, student_t, bayesfm::student_t);
#pragma GCC visibility pop
