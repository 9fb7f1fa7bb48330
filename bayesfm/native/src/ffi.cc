// The door to XLA: argument checks, choice of the instruction set, threads.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "field.h"
#include "rows.h"
#include "table.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace bayesfm {

#define DECLARE(isa)                              \
  namespace isa {                                 \
  template <class T>                              \
  void update_field(const Field<T>&, int, int);   \
  template <class T>                              \
  void row_information(const Field<T>&, T*, int, int); \
  template <class T>                              \
  void move_rows(const Field<T>&, const T*, int, int); \
  template <class T>                              \
  void update_table(const Table<T>&);             \
  template <class T>                              \
  void linear_predictor(const Rows<T>&, int64_t, int64_t); \
  }
#ifdef BAYESFM_X86
DECLARE(avx512)
DECLARE(avx2)
#endif
DECLARE(baseline)
#undef DECLARE

namespace {

enum class Isa { kBaseline, kAvx2, kAvx512 };

Isa best_isa() {
#ifdef BAYESFM_X86
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return Isa::kAvx512;
  if (fma) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

std::atomic<Isa> chosen{best_isa()};

#ifdef BAYESFM_X86
#define PICK(function)                                              \
  (chosen.load() == Isa::kAvx512 ? avx512::function                 \
                                 : chosen.load() == Isa::kAvx2 ? avx2::function : baseline::function)
#else
#define PICK(function) (baseline::function)
#endif

// Parts of some work, taken one by one by this thread and by helpers of the pool. The caller never waits for a helper that
// has not begun, so a pool whose threads all wait cannot be locked up.
class Parts {
 public:
  Parts(int count, std::function<void(int)> part) : count_(count), part_(std::move(part)) {}

  void work() {
    for (int i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) {
      part_(i);
      if (done_.fetch_add(1) + 1 == count_) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_all();
      }
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_.load() == count_; });
  }

 private:
  const int count_;
  const std::function<void(int)> part_;
  std::atomic<int> next_{0}, done_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
};

void run_parts(ffi::ThreadPool pool, int count, std::function<void(int)> part) {
  auto parts = std::make_shared<Parts>(count, std::move(part));
  const int helpers = static_cast<int>(std::min<int64_t>(pool.num_threads(), count)) - 1;
  for (int i = 0; i < helpers; ++i) pool.Schedule([parts] { parts->work(); });
  parts->work();
  parts->wait();
}

// Ends of ranges of features with about the same number of rows; features of W lanes stay together.
std::vector<int> cut(const int32_t* ptr, int m, int64_t cost_per_feature, int count) {
  constexpr int kTogether = 16;
  std::vector<int> ends;
  const int64_t total = ptr[m] + cost_per_feature * m;
  for (int j = kTogether; j < m; j += kTogether)
    if (ptr[j] + cost_per_feature * j >= total * static_cast<int64_t>(ends.size() + 1) / count) ends.push_back(j);
  ends.push_back(m);
  return ends;
}

ffi::Error shapes(const std::string& what) { return ffi::Error::InvalidArgument("bayesfm kernels: " + what); }

// Tables and codes, alternating, at the end of the arguments.
template <class T>
struct Tables {
  std::vector<const T*> table;
  std::vector<const int32_t*> code;
  int64_t stride = 0;

  int count() const { return static_cast<int>(table.size()); }

  // Returns what is wrong with them, if anything is.
  template <ffi::DataType kType>
  std::string read(const ffi::RemainingArgs& arguments, size_t rows) {
    if (arguments.size() == 0 || arguments.size() % 2) return "a table and a code are needed for every unit";
    for (size_t i = 0; i < arguments.size(); i += 2) {
      auto t = arguments.get<ffi::Buffer<kType>>(i);
      auto c = arguments.get<ffi::Buffer<ffi::S32>>(i + 1);
      if (!t.has_value() || !c.has_value()) return "tables and codes have the wrong type";
      if (t->dimensions().size() != 2) return "tables must be (rows, stride)";
      if (i && t->dimensions()[1] != stride) return "tables must have the same stride";
      if (c->element_count() != rows) return "codes must have one entry per row";
      stride = t->dimensions()[1];
      table.push_back(t->typed_data());
      code.push_back(c->typed_data());
    }
    if (stride % (64 / sizeof(T))) return "the stride must be a multiple of 64 bytes";
    return {};
  }
};

template <class T, ffi::DataType kType>
ffi::Error field_update(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> ptr, ffi::Buffer<ffi::S32> row,
                        ffi::Buffer<kType> omega, ffi::Buffer<kType> r, ffi::Buffer<kType> precision,
                        ffi::Buffer<kType> mean, ffi::Buffer<kType> noise, ffi::Buffer<kType> theta,
                        ffi::RemainingArgs others, ffi::Result<ffi::Buffer<kType>> theta_out,
                        ffi::Result<ffi::Buffer<kType>> r_out) {
  if (theta.dimensions().size() != 2) return shapes("theta must be (K, m)");
  const int64_t K = theta.dimensions()[0], m = theta.dimensions()[1];
  if (ptr.element_count() != static_cast<size_t>(m + 1)) return shapes("ptr must have m + 1 entries");
  if (omega.element_count() != r.element_count()) return shapes("omega and r must have one entry per row");
  for (const auto* x : {&precision, &mean, &noise})
    if (x->element_count() != theta.element_count()) return shapes("precision, mean and noise must be (K, m)");
  Tables<T> tables;
  if (const std::string wrong = tables.template read<kType>(others, row.element_count()); !wrong.empty()) return shapes(wrong);
  const int64_t stride = tables.stride;
  if (stride < K) return shapes("the stride must be at least K");

  if (theta_out->typed_data() != theta.typed_data())
    std::memcpy(theta_out->typed_data(), theta.typed_data(), theta.size_bytes());
  if (r_out->typed_data() != r.typed_data()) std::memcpy(r_out->typed_data(), r.typed_data(), r.size_bytes());
  const Field<T> field{static_cast<int>(K), static_cast<int>(m), tables.count(), stride, ptr.typed_data(),
                       row.typed_data(), tables.table.data(), tables.code.data(), omega.typed_data(), r_out->typed_data(),
                       precision.typed_data(), mean.typed_data(), noise.typed_data(), theta_out->typed_data()};
  const UpdateField<T> update = PICK(update_field<T>);
  const int count = static_cast<int>(std::max<int64_t>(1, 4 * pool.num_threads()));
  const std::vector<int> ends = cut(field.ptr, field.m, K * K / 16 + 8, count);
  run_parts(pool, static_cast<int>(ends.size()),
            [&](int i) { update(field, i ? ends[i - 1] : 0, ends[i]); });
  return ffi::Error::Success();
}

template <class T, ffi::DataType kType>
ffi::Error information(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> ptr, ffi::Buffer<ffi::S32> row,
                       ffi::Buffer<kType> omega, ffi::Buffer<kType> r, ffi::RemainingArgs others,
                       ffi::Result<ffi::Buffer<kType>> packed) {
  if (packed->dimensions().size() != 2) return shapes("the information must be (m, q)");
  const int64_t m = packed->dimensions()[0], q = packed->dimensions()[1];
  int K = 0;
  while (K * (K + 3) / 2 < q) ++K;
  if (K * (K + 3) / 2 != q || K == 0) return shapes("q must be K (K + 1) / 2 + K");
  if (ptr.element_count() != static_cast<size_t>(m + 1)) return shapes("ptr must have m + 1 entries");
  if (omega.element_count() != r.element_count()) return shapes("omega and r must have one entry per row");
  Tables<T> tables;
  if (const std::string wrong = tables.template read<kType>(others, row.element_count()); !wrong.empty())
    return shapes(wrong);
  if (tables.stride < K) return shapes("the stride must be at least K");
  const Field<T> field{K, static_cast<int>(m), tables.count(), tables.stride, ptr.typed_data(), row.typed_data(),
                       tables.table.data(), tables.code.data(), omega.typed_data(), r.typed_data(), nullptr, nullptr,
                       nullptr, nullptr};
  const RowInformation<T> gather = PICK(row_information<T>);
  const std::vector<int> ends = cut(field.ptr, field.m, 8, 4 * std::max<int64_t>(1, pool.num_threads()));
  run_parts(pool, static_cast<int>(ends.size()),
            [&](int i) { gather(field, packed->typed_data(), i ? ends[i - 1] : 0, ends[i]); });
  return ffi::Error::Success();
}

template <class T, ffi::DataType kType>
ffi::Error move(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> ptr, ffi::Buffer<ffi::S32> row, ffi::Buffer<kType> r,
                ffi::Buffer<kType> moved, ffi::RemainingArgs others, ffi::Result<ffi::Buffer<kType>> r_out) {
  if (moved.dimensions().size() != 2) return shapes("moved must be (K, m)");
  const int64_t K = moved.dimensions()[0], m = moved.dimensions()[1];
  if (ptr.element_count() != static_cast<size_t>(m + 1)) return shapes("ptr must have m + 1 entries");
  Tables<T> tables;
  if (const std::string wrong = tables.template read<kType>(others, row.element_count()); !wrong.empty())
    return shapes(wrong);
  if (tables.stride < K) return shapes("the stride must be at least K");
  if (r_out->typed_data() != r.typed_data()) std::memcpy(r_out->typed_data(), r.typed_data(), r.size_bytes());
  const Field<T> field{static_cast<int>(K), static_cast<int>(m), tables.count(), tables.stride, ptr.typed_data(),
                       row.typed_data(), tables.table.data(), tables.code.data(), nullptr, r_out->typed_data(), nullptr,
                       nullptr, nullptr, nullptr};
  const MoveResidual<T> step = PICK(move_rows<T>);
  const std::vector<int> ends = cut(field.ptr, field.m, 8, 4 * std::max<int64_t>(1, pool.num_threads()));
  run_parts(pool, static_cast<int>(ends.size()),
            [&](int i) { step(field, moved.typed_data(), i ? ends[i - 1] : 0, ends[i]); });
  return ffi::Error::Success();
}

template <class T, ffi::DataType kType>
ffi::Error table_update(ffi::Buffer<ffi::S32> ptr, ffi::Buffer<ffi::S32> row, ffi::Buffer<kType> value,
                        ffi::Buffer<kType> information, ffi::Buffer<kType> Q, ffi::Buffer<kType> precision,
                        ffi::Buffer<kType> mean, ffi::Buffer<kType> noise, ffi::Buffer<kType> theta,
                        ffi::Result<ffi::Buffer<kType>> theta_out, ffi::Result<ffi::Buffer<kType>> moved) {
  if (theta.dimensions().size() != 2) return shapes("theta must be (K, p)");
  const int64_t K = theta.dimensions()[0], p = theta.dimensions()[1];
  if (information.dimensions().size() != 2) return shapes("the information must be (m, q)");
  const int64_t m = information.dimensions()[0];
  if (information.dimensions()[1] != K * (K + 3) / 2) return shapes("q must be K (K + 1) / 2 + K");
  if (Q.element_count() != static_cast<size_t>((K - 1) * m)) return shapes("Q must be (K - 1, m)");
  if (ptr.element_count() != static_cast<size_t>(p + 1)) return shapes("ptr must have p + 1 entries");
  if (row.element_count() != value.element_count()) return shapes("row and value must have one entry each");
  for (const auto* x : {&precision, &mean, &noise})
    if (x->element_count() != theta.element_count()) return shapes("precision, mean and noise must be (K, p)");
  if (theta_out->typed_data() != theta.typed_data())
    std::memcpy(theta_out->typed_data(), theta.typed_data(), theta.size_bytes());
  const Table<T> table{static_cast<int>(K), static_cast<int>(m), static_cast<int>(p), ptr.typed_data(),
                       row.typed_data(), value.typed_data(), information.typed_data(), Q.typed_data(),
                       precision.typed_data(), mean.typed_data(), noise.typed_data(), theta_out->typed_data(),
                       moved->typed_data()};
  PICK(update_table<T>)(table);
  return ffi::Error::Success();
}

template <class T, ffi::DataType kType>
constexpr auto table_binding() {
  return ffi::Ffi::Bind()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Ret<ffi::Buffer<kType>>()
      .template Ret<ffi::Buffer<kType>>();
}

template <class T, ffi::DataType kType>
constexpr auto information_binding() {
  return ffi::Ffi::Bind()
      .template Ctx<ffi::ThreadPool>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .RemainingArgs()
      .template Ret<ffi::Buffer<kType>>();
}

template <class T, ffi::DataType kType>
ffi::Error rows_eta(ffi::ThreadPool pool, ffi::Buffer<kType> w0, ffi::RemainingArgs units,
                    ffi::Result<ffi::Buffer<kType>> eta) {
  const int64_t n = static_cast<int64_t>(eta->element_count());
  Tables<T> tables;
  if (const std::string wrong = tables.template read<kType>(units, n); !wrong.empty()) return shapes(wrong);
  const Rows<T> rows{tables.count(), tables.stride, tables.table.data(), tables.code.data(), *w0.typed_data(),
                     eta->typed_data()};
  const LinearPredictor<T> predict = PICK(linear_predictor<T>);
  constexpr int64_t kPart = 8192;
  run_parts(pool, static_cast<int>((n + kPart - 1) / kPart),
            [&](int i) { predict(rows, i * kPart, std::min(n, (i + 1) * kPart)); });
  return ffi::Error::Success();
}

template <class T, ffi::DataType kType>
constexpr auto rows_binding() {
  return ffi::Ffi::Bind()
      .template Ctx<ffi::ThreadPool>()
      .template Arg<ffi::Buffer<kType>>()
      .RemainingArgs()
      .template Ret<ffi::Buffer<kType>>();
}

template <class T, ffi::DataType kType>
constexpr auto field_binding() {
  return ffi::Ffi::Bind()
      .template Ctx<ffi::ThreadPool>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .template Arg<ffi::Buffer<kType>>()
      .RemainingArgs()
      .template Ret<ffi::Buffer<kType>>()
      .template Ret<ffi::Buffer<kType>>();
}

}  // namespace
}  // namespace bayesfm

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_field_f32, (bayesfm::field_update<float, ffi::F32>),
                              (bayesfm::field_binding<float, ffi::F32>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_rows_f32, (bayesfm::rows_eta<float, ffi::F32>),
                              (bayesfm::rows_binding<float, ffi::F32>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_rows_f64, (bayesfm::rows_eta<double, ffi::F64>),
                              (bayesfm::rows_binding<double, ffi::F64>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_field_f64, (bayesfm::field_update<double, ffi::F64>),
                              (bayesfm::field_binding<double, ffi::F64>()));

// 0, 1, 2: baseline, AVX2, AVX-512. Returns what is in force; refuses what the machine lacks.
extern "C" int bayesfm_isa() { return static_cast<int>(bayesfm::chosen.load()); }
extern "C" int bayesfm_set_isa(int isa) {
  if (isa < 0 || isa > static_cast<int>(bayesfm::best_isa())) return -1;
  bayesfm::chosen.store(static_cast<bayesfm::Isa>(isa));
  return isa;
}
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_information_f32, (bayesfm::information<float, ffi::F32>),
                              (bayesfm::information_binding<float, ffi::F32>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_information_f64, (bayesfm::information<double, ffi::F64>),
                              (bayesfm::information_binding<double, ffi::F64>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_move_f32, (bayesfm::move<float, ffi::F32>),
                              (bayesfm::information_binding<float, ffi::F32>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_move_f64, (bayesfm::move<double, ffi::F64>),
                              (bayesfm::information_binding<double, ffi::F64>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_table_f32, (bayesfm::table_update<float, ffi::F32>),
                              (bayesfm::table_binding<float, ffi::F32>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(bayesfm_table_f64, (bayesfm::table_update<double, ffi::F64>),
                              (bayesfm::table_binding<double, ffi::F64>()));
#pragma GCC visibility pop
