// Log densities of all rows, added up with their derivatives by a few parameters; see ordinal.cc, student_t.cc, counts.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Rows with a weight each, and the parameters where the sums are taken.
struct RowTerms {
  const float *y, *weight, *eta, *at;
  int64_t dim;  // number of parameters
};

// Of rows lo, ..., hi - 1 the value, the gradient (dim) and the Hessian (dim, dim) are added to `sums`.
using SumRows = void (*)(const RowTerms&, int64_t lo, int64_t hi, double* sums);

}  // namespace bayesfm
