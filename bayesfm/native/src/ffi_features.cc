// The door to XLA of the kernels that draw features, and of what rows make of them.
#include "ffi.h"

namespace bayesfm {
namespace {

static_assert(kMultiple % kSideBySide == 0, "ranges of features must hold whole blocks of systems");

// The factor that is eliminated last, of every member.
inline void check_factors(Arguments& a, const Batched<const int32_t>& last, int64_t k) {
  if (!a.wrong().empty()) return;
  for (int64_t b = 0; b < a.members(); ++b) {
    const int32_t f = *a.at(last, b);
    a.expect(f >= 0 && f < std::max<int64_t>(1, k), "last must be a factor, or 0 where there is none");
  }
}

template <class T>
ffi::Error eliminate(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const FieldArguments<T> f(a);
  const auto theta = a.in<T>(7, "theta", {f.K, f.m});
  const auto last = a.in<int32_t>(8, "last", {});
  const int64_t blocks = (f.m + kSideBySide - 1) / kSideBySide;
  const auto systems = a.out<T>(0, "the systems", {blocks, kept(f.K - 1), kSideBySide});
  const auto corner = a.out<T>(1, "the corner", {kCorner, f.m});
  const Tables<T> tables(a, 9, f.row.dim(0), f.K - 1);
  check_factors(a, last, f.K - 1);
  if (!a.wrong().empty()) return refuse(a);
  std::vector<Pointers<T>> pointers;
  std::vector<Elimination<T>> fields;
  for (int64_t b = 0; b < a.members(); ++b) pointers.emplace_back(a, tables, b);
  for (int64_t b = 0; b < a.members(); ++b)
    fields.push_back({f.rows(a, b, pointers[b].others()), f.prior(a, b), *a.at(last, b), a.at(f.omega, b), a.at(f.r, b),
                      a.at(theta, b), a.at(systems, b), a.at(corner, b)});
  const EliminateField<T> step = PICK(chosen.load(), eliminate_field<T>);
  over_features(pool, a.members(), f.ptr.data, 0, static_cast<int>(f.m), f.K * f.K / 16 + 8, of_sums(f.K),
                [&](int64_t b, int lo, int hi) { step(fields[b], lo, hi); });
  return ffi::Error::Success();
}

template <class T>
ffi::Error substitute(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  Arguments a(args, rets, 1);
  const auto ptr = a.pointers(0);
  const auto row = a.in<int32_t>(1, "row", {kAny});
  const int64_t m = ptr.dim(0) - 1;
  const auto theta = a.in<T>(2, "theta", {kAny, m});
  const int64_t K = theta.dim(0);
  const auto systems = a.in<T>(3, "the systems", {(m + kSideBySide - 1) / kSideBySide, kept(K - 1), kSideBySide});
  const auto ends = a.in<T>(4, "the ends", {kCorner, m});
  const auto last = a.in<int32_t>(5, "last", {});
  const auto noise = a.in<T>(6, "noise", {K, m});
  const auto r = a.in<T>(7, "r", {kAny});
  const auto theta_out = a.out<T>(0, "new theta", {K, m});
  const auto r_out = a.out<T>(1, "new r", {r.dim(0)});
  const Tables<T> tables(a, 8, row.dim(0), K - 1);
  check_factors(a, last, K - 1);
  a.expect(ptr.strides == std::vector<int64_t>(ptr.strides.size(), 0), "ptr must be the same for the whole batch");
  if (!a.wrong().empty()) return refuse(a);
  a.start_from(theta_out, theta);
  a.start_from(r_out, r);
  const int k = static_cast<int>(K - 1);
  const SubstituteField<T> step = PICK(chosen.load(), substitute_field<T>);
  over_features(pool, a.members(), ptr.data, 0, static_cast<int>(m), 8 + k, of_products(k), [&](int64_t b, int lo, int hi) {
    const Pointers<T> p(a, tables, b);
    step({{k, m, a.at(ptr, b), a.at(row, b), p.others()}, *a.at(last, b), a.at(systems, b), a.at(ends, b), a.at(noise, b),
          a.at(theta_out, b), a.at(r_out, b)},
         lo, hi);
  });
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

}  // namespace
}  // namespace bayesfm

#pragma GCC visibility push(default)
DEFINE(columns);
DEFINE(eliminate);
DEFINE(information);
DEFINE(move);
DEFINE(rows);
DEFINE(substitute);
DEFINE(summaries);
DEFINE(table);
#pragma GCC visibility pop
