// What the columns of a general sparse matrix need; see columns.cc.
#pragma once

#include <cstdint>

#include "field.h"

namespace bayesfm {

// Column j of p has the entries ptr[j] ... ptr[j + 1] - 1 of row and value. Columns within one run share no row; run i ends
// before column ends[i].
template <class T>
struct Columns {
  int k;
  int64_t p, stride;
  const int32_t* ptr;
  const int32_t* row;
  const T* value;
  GroupPrior<T> prior;
  const T* omega;
  const T* noise;  // (K, p)
  T* Q;            // rows of `stride`: factors of everything in the row; brought up to date
  T* r;            // brought up to date
  T* theta;        // (K, p), replaced by the draw
};

// Draws columns lo, ..., hi - 1 of runs that end at `ends`, the last of them at hi or later.
template <class T>
using UpdateColumns = void (*)(const Columns<T>&, const int32_t* ends, int64_t lo, int64_t hi);

// Summaries (E, Q) of the rows lo, ..., hi - 1 of a matrix, from its entries by row.
template <class T>
struct Matrix {
  int k;
  int64_t stride;
  const int32_t* ptr;
  const int32_t* feature;
  const T* value;
  const T* w;  // (p,)
  const T* v;  // (p, stride), padded with zeros
  T* E;        // (rows,)
  T* Q;        // (rows, stride)
};

template <class T>
using Summarize = void (*)(const Matrix<T>&, int64_t lo, int64_t hi);

}  // namespace bayesfm
