// What the doors to XLA have in common: how work is shared out, how mistakes are answered, how a handler is declared.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "arguments.h"
#include "isa.h"
#include "parts.h"

namespace ffi = xla::ffi;

namespace bayesfm {

extern std::atomic<Isa> chosen;  // the instruction set in force

inline ffi::Error refuse(const Arguments& a) { return ffi::Error::InvalidArgument("bayesfm kernels: " + a.wrong()); }

// Nanoseconds of the sums over an entry, and of its residual, in K = rank + 1 parameters; measured with AVX-512.
inline double of_sums(int64_t K) { return 1.5 + 0.015 * static_cast<double>(K * K); }
inline double of_products(int64_t K) { return 1 + 0.03 * static_cast<double>(K); }

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

// What an update of a field begins with: its rows, their weights and residuals, its features' prior.
template <class T>
struct FieldArguments {
  explicit FieldArguments(Arguments& a)
      : ptr(a.pointers(0)), row(a.in<int32_t>(1, "row", {kAny})), omega(a.in<T>(2, "omega", {kAny})),
        r(a.in<T>(3, "r", {omega.dim(0)})), m(ptr.dim(0) - 1), group(a.in<int32_t>(4, "group", {m})),
        precision(a.in<T>(5, "precision", {kAny, kAny})), K(precision.dim(0)),
        mean(a.in<T>(6, "mean", {K, precision.dim(1)})) {
    a.expect(ptr.strides == std::vector<int64_t>(ptr.strides.size(), 0), "ptr must be the same for the whole batch");
    a.expect(K >= 1, "theta needs a row for w");
  }
  OwnedRows<T> rows(const Arguments& a, int64_t member, const Others<T>& others) const {
    return {static_cast<int>(K - 1), m, a.at(ptr, member), a.at(row, member), others};
  }
  GroupPrior<T> prior(const Arguments& a, int64_t member) const {
    return {precision.dim(1), a.at(group, member), a.at(precision, member), a.at(mean, member)};
  }
  const Batched<const int32_t> ptr, row;
  const Batched<const T> omega, r;
  const int64_t m;
  const Batched<const int32_t> group;
  const Batched<const T> precision;
  const int64_t K;
  const Batched<const T> mean;
};

}  // namespace bayesfm

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define DEFINE_AS(suffix, name, function) XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_##name##_##suffix, function, BINDING)
#define DEFINE(name)                                \
  DEFINE_AS(f32, name, (bayesfm::name<float>)); \
  DEFINE_AS(f64, name, (bayesfm::name<double>))
