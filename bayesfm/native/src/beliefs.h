// Gaussian beliefs about features, and what they say of the variance of eta; see beliefs.cc and spreads.cc.
#pragma once

#include <cstdint>

#include "field.h"

namespace bayesfm {

// What an uncertain feature with x = 1 brings into a row (predictors/spread.py), as a row of a table: C = cov(v), its triangle by
// rows, then s = cov(v, w), A, the mean m of v, a, t.
struct SpreadRow {
  explicit SpreadRow(int k) : k(k), triangle(k * (k + 1) / 2) {}
  int s() const { return triangle; }
  int A() const { return triangle + k; }
  int m() const { return triangle + 2 * k; }
  int a() const { return triangle + 3 * k; }
  int t() const { return a() + 1; }
  int size() const { return a() + 2; }
  const int k, triangle;
};

// The table of a field's m features, and a row of zeros for data rows that have none of them.
template <class T>
struct Spreads {
  int k;
  int64_t m, stride;
  const T *mean, *cov;  // (K, m), (K, K, m); K = k + 1
  T* out;               // (m + 1, stride)
};

template <class T>
using FillSpreads = void (*)(const Spreads<T>&, int64_t lo, int64_t hi);

// Variance of eta of data rows, w0 left out, from the tables of all units; code[t] leads there from every data row.
template <class T>
struct Variances {
  int k, num_units;
  int64_t stride;
  const T* const* spread;
  const int32_t* const* code;
  T* out;
};

template <class T>
using RowVariances = void (*)(const Variances<T>&, int64_t lo, int64_t hi);

// The best belief about every feature of a one-hot field, given those about all others.
template <class T>
struct Beliefs {
  OwnedRows<T> rows;       // the tables: means of the other units' factors
  int64_t stride;
  const T* const* spread;  // their spreads
  GroupPrior<T> prior;
  const T* omega;
  T* r;        // z - E[eta] per data row, brought up to date
  T* mean;     // (K, m), replaced
  T* cov;      // (K, K, m)
  T* log_det;  // (m,), of cov
};

template <class T>
using UpdateBeliefs = void (*)(const Beliefs<T>&, int lo, int hi);

}  // namespace bayesfm
