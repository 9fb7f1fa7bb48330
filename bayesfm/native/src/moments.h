// What the hyperparameters need of the features; see moments.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Of row i of theta (K, m), per group (sorted, G of them): mean, and sum of squares around it.
template <class T>
using GroupMoments = void (*)(const T* row, const int32_t* group, int64_t m, int64_t num_groups, T* mean, T* scatter);

// Of features lo, ..., hi - 1 of one group: sum of (x - centre)(x - centre)', x of k rows of m numbers; centre[f * num_groups]
// is that of row f. out (k, k): the upper triangle at least.
template <class T>
struct Scatter {
  const T *x, *centre;
  int64_t k, m, num_groups, lo, hi;
  double* out;
};

template <class T>
using GroupScatter = void (*)(const Scatter<T>&);

// What features whose w has been integrated out say of the precision lambda of their group, per group (sorted, G of them): with
// t = c / (lambda + c), s = 1 - t, e = d / (lambda + c) the sums of t, t^2, t^2 s, e, t e, t e s, e^2, e^2 s at the new lambda,
// and the rise of their log density from the old one (inference/conjugate/collapsed.py).
constexpr int kScaleSums = 9;

template <class T>
struct ScaleTerms {
  const T *c, *d;
  const int32_t* group;
  int64_t m, num_groups;
  const T *from, *at;  // (G,)
  T* out;              // (kScaleSums, G)
};

template <class T>
using ScaleSums = void (*)(const ScaleTerms<T>&);

}  // namespace bayesfm
