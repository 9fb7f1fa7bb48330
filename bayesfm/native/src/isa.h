// The kernels of every instruction set, and which of them is in force.
#pragma once

#include "beliefs.h"
#include "bits.h"
#include "columns.h"
#include "field.h"
#include "gamma.h"
#include "moments.h"
#include "normal.h"
#include "polya_gamma.h"
#include "rotation.h"
#include "row_sums.h"
#include "rows.h"
#include "table.h"
#include "truncated.h"

namespace bayesfm {

#define DECLARE(isa)                                                                           \
  namespace isa {                                                                              \
  template <class T>                                                                           \
  void eliminate_field(const Elimination<T>&, int, int);                                       \
  template <class T>                                                                           \
  void substitute_field(const Substitution<T>&, int, int);                                     \
  template <class T>                                                                           \
  void row_information(const OwnedRows<T>&, const T*, const T*, T*, int, int);                 \
  template <class T>                                                                           \
  void move_rows(const OwnedRows<T>&, const T*, T*, int, int);                                 \
  template <class T>                                                                           \
  void update_beliefs(const Beliefs<T>&, int, int);                                            \
  template <class T>                                                                           \
  void fill_spreads(const Spreads<T>&, int64_t, int64_t);                                      \
  template <class T>                                                                           \
  void row_variances(const Variances<T>&, int64_t, int64_t);                                   \
  template <class T>                                                                           \
  void update_table(const Table<T>&);                                                          \
  template <class T>                                                                           \
  void linear_predictor(const Rows<T>&, int64_t, int64_t);                                     \
  template <class T>                                                                           \
  void update_columns(const Columns<T>&, const int32_t*, int64_t, int64_t);                    \
  template <class T>                                                                           \
  void summarize(const Matrix<T>&, int64_t, int64_t);                                          \
  template <class T>                                                                           \
  void group_moments(const T*, const int32_t*, int64_t, int64_t, T*, T*);                      \
  template <class T>                                                                           \
  void group_scatter(const Scatter<T>&);                                                       \
  template <class T>                                                                           \
  void scale_sums(const ScaleTerms<T>&);                                                       \
  template <class T>                                                                           \
  void turn_pairs(const Turns<T>&);                                                            \
  void random_bits_of(uint32_t, uint32_t, uint32_t*, int64_t, int64_t);                        \
  void random_keys(uint32_t, uint32_t, uint32_t, uint32_t*, int64_t, int64_t);                 \
  void standard_normals(uint32_t, uint32_t, float*, int64_t, int64_t);                         \
  void truncated_normals(const Truncated&, int64_t, int64_t);                                  \
  void polya_gammas(const PolyaGamma&, int64_t, int64_t);                                      \
  void gammas(const Gamma&, int64_t, int64_t);                                                 \
  void gamma_sums(const GammaSum&, int64_t, int64_t);                                          \
  void sum_ordinal(const RowTerms&, int64_t, int64_t, double*);                                \
  void sum_student_t(const RowTerms&, int64_t, int64_t, double*);                              \
  void sum_counts(const RowTerms&, int64_t, int64_t, double*);                                 \
  }
#ifdef BAYESFM_X86
DECLARE(avx512)
DECLARE(avx2)
#endif
DECLARE(baseline)
#undef DECLARE

enum class Isa { kBaseline, kAvx2, kAvx512 };

inline Isa best_isa() {
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

#ifdef BAYESFM_X86
#define PICK(isa, function)                       \
  ((isa) == ::bayesfm::Isa::kAvx512               \
       ? ::bayesfm::avx512::function              \
       : (isa) == ::bayesfm::Isa::kAvx2 ? ::bayesfm::avx2::function : ::bayesfm::baseline::function)
#else
#define PICK(isa, function) (::bayesfm::baseline::function)
#endif

}  // namespace bayesfm
