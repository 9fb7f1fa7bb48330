// The door to XLA: what each kernel takes, and how its work is shared out.
#include <atomic>
#include <string>
#include <vector>

#include "arguments.h"
#include "isa.h"
#include "parts.h"

namespace ffi = xla::ffi;

namespace bayesfm {
namespace {

std::atomic<Isa> chosen{best_isa()};

ffi::Error refuse(const Arguments& a) { return ffi::Error::InvalidArgument("bayesfm kernels: " + a.wrong()); }

// Nanoseconds of the sums over an entry, and of its residual, in K = rank + 1 parameters; measured with AVX-512.
double of_sums(int64_t K) { return 1.5 + 0.015 * static_cast<double>(K * K); }
double of_products(int64_t K) { return 1 + 0.03 * static_cast<double>(K); }

// Ranges of features of every member of the batch: (member, first, last). An entry takes some nanoseconds, a feature as long as
// `cost` entries.
template <class F>
void over_features(ffi::ThreadPool pool, int64_t members, const int32_t* ptr, int first, int last, int64_t cost,
                   double nanoseconds, const F& f) {
  const std::vector<int> ends = cut(ptr, first, last, cost, std::max<int64_t>(1, 4 * pool.num_threads()));
  const int64_t ranges = static_cast<int64_t>(ends.size());
  const double entries = static_cast<double>(ptr[last] - ptr[first] + cost * (last - first));
  run_parts(pool, members * ranges, static_cast<double>(members) * entries * nanoseconds, [&](int64_t i) {
    const int64_t part = i % ranges;
    f(i / ranges, part ? ends[part - 1] : first, ends[part]);
  });
}

// Tables and codes of one member.
template <class T>
struct Pointers {
  Pointers(const Arguments& a, const Tables<T>& t, int64_t member) : stride(t.stride) {
    for (const auto& x : t.table) table.push_back(a.at(x, member));
    for (const auto& x : t.code) code.push_back(a.at(x, member));
  }
  Others<T> others() const { return {static_cast<int>(table.size()), stride, table.data(), code.data()}; }
  int64_t stride;
  std::vector<const T*> table;
  std::vector<const int32_t*> code;
};

template <class T>
ffi::Error field(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const auto omega = a.in<T>(2, "omega", {kAny});
  const auto r = a.in<T>(3, "r", {omega.dim(0)});
  const int64_t m = ptr.dim(0) - 1;
  const auto group = a.in<int32_t>(4, "group", {m});
  const auto precision = a.in<T>(5, "precision", {kAny, kAny});
  const int64_t K = precision.dim(0);
  const auto mean = a.in<T>(6, "mean", {K, precision.dim(1)});
  const auto noise = a.in<T>(7, "noise", {K, m});
  const auto theta = a.in<T>(8, "theta", {K, m});
  const auto theta_out = a.out<T>(0, "new theta", {K, m});
  const auto r_out = a.out<T>(1, "new r", {omega.dim(0)});
  const Tables<T> tables(a, 9, row.dim(0), K - 1);
  a.expect(ptr.strides == std::vector<int64_t>(ptr.strides.size(), 0), "ptr must be the same for the whole batch");
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(theta_out, theta);
  a.start_from(r_out, r);
  std::vector<Pointers<T>> pointers;
  std::vector<Field<T>> fields;
  for (int64_t b = 0; b < a.members(); ++b) pointers.emplace_back(a, tables, b);
  for (int64_t b = 0; b < a.members(); ++b)
    fields.push_back({{static_cast<int>(K - 1), m, a.at(ptr, b), a.at(row, b), pointers[b].others()},
                      {precision.dim(1), a.at(group, b), a.at(precision, b), a.at(mean, b)},
                      a.at(omega, b), a.at(r_out, b), a.at(noise, b), a.at(theta_out, b)});
  const UpdateField<T> update = PICK(chosen.load(), update_field<T>);
  over_features(pool, a.members(), ptr.data, 0, static_cast<int>(m), K * K / 16 + 8, of_sums(K),
                [&](int64_t b, int lo, int hi) { update(fields[b], lo, hi); });
  return ffi::Error::Success();
}

template <class T>
ffi::Error information(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const auto omega = a.in<T>(2, "omega", {kAny});
  const auto r = a.in<T>(3, "r", {omega.dim(0)});
  const int64_t m = ptr.dim(0) - 1;
  const auto packed = a.out<T>(0, "the information", {m, kAny});
  int K = 0;
  while (K * (K + 3) / 2 < packed.dim(1)) ++K;
  a.expect(K > 0 && K * (K + 3) / 2 == packed.dim(1), "the information must have K (K + 3) / 2 columns");
  const Tables<T> tables(a, 4, row.dim(0), K - 1);
  a.expect(ptr.strides == std::vector<int64_t>(ptr.strides.size(), 0), "ptr must be the same for the whole batch");
  if (!a.wrong().empty()) return refuse(a);
  const RowInformation<T> gather = PICK(chosen.load(), row_information<T>);
  over_features(pool, a.members(), ptr.data, 0, static_cast<int>(m), 8, of_sums(K), [&](int64_t b, int lo, int hi) {
    const Pointers<T> p(a, tables, b);
    gather({K - 1, m, a.at(ptr, b), a.at(row, b), p.others()}, a.at(omega, b), a.at(r, b), a.at(packed, b), lo, hi);
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error move(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const auto r = a.in<T>(2, "r", {kAny});
  const int64_t m = ptr.dim(0) - 1;
  const auto moved = a.in<T>(3, "moved", {kAny, m});
  const auto r_out = a.out<T>(0, "new r", {r.dim(0)});
  const Tables<T> tables(a, 4, row.dim(0), moved.dim(0) - 1);
  a.expect(ptr.strides == std::vector<int64_t>(ptr.strides.size(), 0), "ptr must be the same for the whole batch");
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(r_out, r);
  const int k = static_cast<int>(moved.dim(0)) - 1;
  const MoveRows<T> step = PICK(chosen.load(), move_rows<T>);
  over_features(pool, a.members(), ptr.data, 0, static_cast<int>(m), 8, of_products(k), [&](int64_t b, int lo, int hi) {
    const Pointers<T> p(a, tables, b);
    step({k, m, a.at(ptr, b), a.at(row, b), p.others()}, a.at(moved, b), a.at(r_out, b), lo, hi);
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error table(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const int64_t p = ptr.dim(0) - 1;
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const auto value = a.in<T>(2, "value", {row.dim(0)});
  const auto information = a.in<T>(3, "the information", {kAny, kAny});
  const int64_t m = information.dim(0);
  const auto Q = a.in<T>(4, "Q", {kAny, m});
  const int64_t K = Q.dim(0) + 1;
  const auto group = a.in<int32_t>(5, "group", {p});
  const auto precision = a.in<T>(6, "precision", {K, kAny});
  const auto mean = a.in<T>(7, "mean", {K, precision.dim(1)});
  const auto noise = a.in<T>(8, "noise", {K, p});
  const auto theta = a.in<T>(9, "theta", {K, p});
  const auto theta_out = a.out<T>(0, "new theta", {K, p});
  const auto moved = a.out<T>(1, "moved", {K, m});
  a.expect(information.dim(1) == K * (K + 3) / 2, "the information must have K (K + 3) / 2 columns");
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(theta_out, theta);
  const UpdateTable<T> update = PICK(chosen.load(), update_table<T>);
  const double work = static_cast<double>(a.members() * row.dim(0) * K * K);
  run_parts(pool, a.members(), work, [&](int64_t b) {
    update({static_cast<int>(K), m, p, a.at(ptr, b), a.at(row, b), a.at(value, b), a.at(information, b), a.at(Q, b),
            {precision.dim(1), a.at(group, b), a.at(precision, b), a.at(mean, b)}, a.at(noise, b), a.at(theta_out, b),
            a.at(moved, b)});
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error rows(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 0);
  const auto w0 = a.in<T>(0, "w0", {});
  const auto eta = a.out<T>(0, "eta", {kAny});
  const int64_t n = eta.dim(0);
  a.expect(a.num_args() > 1 && a.num_args() % 3 == 1, "E, Q and codes are needed for every unit");
  std::vector<Batched<const T>> E, Q;
  std::vector<Batched<const int32_t>> code;
  for (size_t i = 1; i + 2 < a.num_args(); i += 3) {
    Q.push_back(a.in<T>(i + 1, "Q", {kAny, i == 1 ? kAny : Q[0].dim(1)}));
    E.push_back(a.in<T>(i, "E", {Q.back().dim(0)}));
    code.push_back(a.in<int32_t>(i + 2, "a code", {n}));
  }
  if (!Q.empty()) Tables<T>::check_stride(a, Q[0].dim(1), 0);
  if (!a.wrong().empty()) return refuse(a);
  const LinearPredictor<T> predict = PICK(chosen.load(), linear_predictor<T>);
  constexpr int64_t kPart = 8192;
  const int64_t parts = (n + kPart - 1) / kPart;
  const double work = static_cast<double>(a.members() * n) * of_products(Q[0].dim(1)) * static_cast<double>(Q.size());
  run_parts(pool, a.members() * parts, work, [&](int64_t i) {
    const int64_t b = i / parts, lo = i % parts * kPart;
    std::vector<const T*> E_b, Q_b;
    std::vector<const int32_t*> code_b;
    for (size_t t = 0; t < Q.size(); ++t) {
      E_b.push_back(a.at(E[t], b));
      Q_b.push_back(a.at(Q[t], b));
      code_b.push_back(a.at(code[t], b));
    }
    predict({static_cast<int>(Q.size()), Q[0].dim(1), E_b.data(), Q_b.data(), code_b.data(), *a.at(w0, b), a.at(eta, b)},
            lo, std::min(n, lo + kPart));
  });
  return ffi::Error::Success();
}

// Long runs of columns are shared out, short ones follow each other on this thread.
template <class T>
void draw_runs(ffi::ThreadPool pool, UpdateColumns<T> update, const Columns<T>& f, const int32_t* ends, int64_t num_runs) {
  constexpr int64_t kShared = 1 << 14;
  int64_t waiting = 0;  // runs from here on have not been drawn
  const auto start_of = [&](int64_t i) { return i ? ends[i - 1] : 0; };
  const auto catch_up = [&](int64_t until) {
    if (waiting < until) update(f, ends + waiting, start_of(waiting), start_of(until));
    waiting = until;
  };
  for (int64_t i = 0; i < num_runs; ++i) {
    if (f.ptr[ends[i]] - f.ptr[start_of(i)] + 8 * (ends[i] - start_of(i)) < kShared) continue;
    catch_up(i);
    over_features(pool, 1, f.ptr, start_of(i), ends[i], f.k * f.k / 16 + 8, of_sums(f.k + 1),
                  [&](int64_t, int lo, int hi) { update(f, ends + i, lo, hi); });
    waiting = i + 1;
  }
  catch_up(num_runs);
}

template <class T>
ffi::Error columns(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const int64_t p = ptr.dim(0) - 1;
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const auto value = a.in<T>(2, "value", {row.dim(0)});
  const auto ends = a.in<int32_t>(3, "ends", {kAny});
  const auto omega = a.in<T>(4, "omega", {kAny});
  const auto r = a.in<T>(5, "r", {omega.dim(0)});
  const auto Q = a.in<T>(6, "Q", {omega.dim(0), kAny});
  const auto group = a.in<int32_t>(7, "group", {p});
  const auto precision = a.in<T>(8, "precision", {kAny, kAny});
  const int64_t K = precision.dim(0);
  a.expect(K >= 1, "theta needs a row for w");
  const auto mean = a.in<T>(9, "mean", {K, precision.dim(1)});
  const auto noise = a.in<T>(10, "noise", {K, p});
  const auto theta = a.in<T>(11, "theta", {K, p});
  const auto theta_out = a.out<T>(0, "new theta", {K, p});
  const auto r_out = a.out<T>(1, "new r", {omega.dim(0)});
  const auto Q_out = a.out<T>(2, "new Q", {omega.dim(0), Q.dim(1)});
  Tables<T>::check_stride(a, Q.dim(1), K - 1);
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(theta_out, theta);
  a.start_from(r_out, r);
  a.start_from(Q_out, Q);
  const UpdateColumns<T> update = PICK(chosen.load(), update_columns<T>);
  const double work = static_cast<double>(a.members() * row.dim(0)) * of_sums(K);
  run_parts(pool, a.members(), work, [&](int64_t b) {
    const Columns<T> f{static_cast<int>(K - 1), p, Q.dim(1), a.at(ptr, b), a.at(row, b), a.at(value, b),
                       {precision.dim(1), a.at(group, b), a.at(precision, b), a.at(mean, b)}, a.at(omega, b),
                       a.at(noise, b), a.at(Q_out, b), a.at(r_out, b), a.at(theta_out, b)};
    draw_runs(pool, update, f, a.at(ends, b), ends.dim(0));
  });
  return ffi::Error::Success();
}

template <class T>
ffi::Error summaries(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const int64_t n = ptr.dim(0) - 1;
  const auto feature = a.in<int32_t>(1, "feature", {kAny});
  const auto value = a.in<T>(2, "value", {feature.dim(0)});
  const auto w = a.in<T>(3, "w", {kAny});
  const auto v = a.in<T>(4, "v", {w.dim(0), kAny});
  const auto E = a.out<T>(0, "E", {n});
  const auto Q = a.out<T>(1, "Q", {n, v.dim(1)});
  Tables<T>::check_stride(a, v.dim(1), 0);
  if (!a.wrong().empty()) return refuse(a);
  const Summarize<T> sum = PICK(chosen.load(), summarize<T>);
  const int k = static_cast<int>(v.dim(1));
  over_features(pool, a.members(), ptr.data, 0, static_cast<int>(n), 4, of_products(k), [&](int64_t b, int lo, int hi) {
    sum({k, v.dim(1), a.at(ptr, b), a.at(feature, b), a.at(value, b), a.at(w, b), a.at(v, b), a.at(E, b), a.at(Q, b)},
        lo, hi);
  });
  return ffi::Error::Success();
}

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

// Numbers lo, ..., hi - 1 of every member's stream; one takes some nanoseconds, measured with AVX-512.
template <class F>
void over_numbers(ffi::ThreadPool pool, int64_t members, int64_t size, double nanoseconds, const F& f) {
  const int64_t kPart = static_cast<int64_t>(2e4 / nanoseconds) / 64 * 64, parts = (size + kPart - 1) / kPart;
  run_parts(pool, members * parts, nanoseconds * static_cast<double>(members * size), [&](int64_t i) {
    const int64_t lo = i % parts * kPart;
    f(i / parts, lo, std::min(size, lo + kPart));
  });
}

ffi::Error bits(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto out = a.out<uint32_t>(0, "the bits", {kAny});
  if (!a.wrong().empty()) return refuse(a);
  const RandomBits draw = PICK(chosen.load(), random_bits_of);
  over_numbers(pool, a.members(), out.size, 0.4, [&](int64_t b, int64_t lo, int64_t hi) {
    draw(a.at(key, b)[0], a.at(key, b)[1], a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error keys(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto first = a.in<uint32_t>(1, "the first number", {});
  const auto out = a.out<uint32_t>(0, "the keys", {kAny, 2});
  if (!a.wrong().empty()) return refuse(a);
  const RandomKeys derive = PICK(chosen.load(), random_keys);
  over_numbers(pool, a.members(), out.size / 2, 10, [&](int64_t b, int64_t lo, int64_t hi) {
    derive(a.at(key, b)[0], a.at(key, b)[1], *a.at(first, b), a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error normals(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto out = a.out<float>(0, "the normals", {kAny});
  if (!a.wrong().empty()) return refuse(a);
  const StandardNormals draw = PICK(chosen.load(), standard_normals);
  over_numbers(pool, a.members(), out.size, 0.6, [&](int64_t b, int64_t lo, int64_t hi) {
    draw(a.at(key, b)[0], a.at(key, b)[1], a.at(out, b), lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error truncated_normals(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto mean = a.in<float>(1, "mean", {kAny});
  const auto lower = a.in<float>(2, "lower", {mean.dim(0)});
  const auto upper = a.in<float>(3, "upper", {mean.dim(0)});
  const auto out = a.out<float>(0, "the draws", {mean.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const TruncatedNormals draw = PICK(chosen.load(), truncated_normals);
  over_numbers(pool, a.members(), out.size, 9, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(mean, b), a.at(lower, b), a.at(upper, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error polya_gammas(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto c = a.in<float>(1, "c", {kAny});
  const auto out = a.out<float>(0, "the draws", {c.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const PolyaGammas draw = PICK(chosen.load(), polya_gammas);
  over_numbers(pool, a.members(), out.size, 11, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(c, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error gammas(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto shape = a.in<float>(1, "the shapes", {kAny});
  const auto out = a.out<float>(0, "the draws", {shape.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const Gammas draw = PICK(chosen.load(), gammas);
  over_numbers(pool, a.members(), out.size, 4, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(shape, b), a.at(out, b)}, lo, hi);
  });
  return ffi::Error::Success();
}

ffi::Error gamma_sums(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto key = a.in<uint32_t>(0, "the key", {2});
  const auto shape = a.in<float>(1, "b", {kAny});
  const auto c = a.in<float>(2, "c", {shape.dim(0)});
  const auto out = a.out<float>(0, "the draws", {shape.dim(0)});
  if (!a.wrong().empty()) return refuse(a);
  const GammaSums draw = PICK(chosen.load(), gamma_sums);
  over_numbers(pool, a.members(), out.size, 18, [&](int64_t b, int64_t lo, int64_t hi) {
    draw({a.at(key, b)[0], a.at(key, b)[1], a.at(shape, b), a.at(c, b), a.at(out, b), out.size}, lo, hi);
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

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define DEFINE(name)                                                                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_##name##_f32, (bayesfm::name<float>), BINDING); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_##name##_f64, (bayesfm::name<double>), BINDING)

#pragma GCC visibility push(default)
DEFINE(columns);
DEFINE(field);
DEFINE(information);
DEFINE(moments);
DEFINE(move);
DEFINE(rotation);
DEFINE(rows);
DEFINE(scatter);
DEFINE(summaries);
DEFINE(table);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_bits_u32, bayesfm::bits, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_keys_u32, bayesfm::keys, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_normals_f32, bayesfm::normals, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_truncated_normals_f32, bayesfm::truncated_normals, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_polya_gammas_f32, bayesfm::polya_gammas, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_gammas_f32, bayesfm::gammas, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_gamma_sums_f32, bayesfm::gamma_sums, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_ordinal_f32, bayesfm::ordinal, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_student_t_f32, bayesfm::student_t, BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_counts_f32, bayesfm::counts, BINDING);

// 0, 1, 2: baseline, AVX2, AVX-512. Returns what is in force; refuses what the machine lacks.
extern "C" int bayesfm_isa() { return static_cast<int>(bayesfm::chosen.load()); }
extern "C" int bayesfm_set_isa(int isa) {
  if (isa < 0 || isa > static_cast<int>(bayesfm::best_isa())) return -1;
  bayesfm::chosen.store(static_cast<bayesfm::Isa>(isa));
  return isa;
}
#pragma GCC visibility pop
