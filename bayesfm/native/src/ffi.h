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

}  // namespace bayesfm

#define BINDING ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define DEFINE_AS(suffix, name, function) XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_##name##_##suffix, function, BINDING)
#define DEFINE(name)                                \
  DEFINE_AS(f32, name, (bayesfm::name<float>)); \
  DEFINE_AS(f64, name, (bayesfm::name<double>))
