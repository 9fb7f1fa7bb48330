// What a field's update needs; see field.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Arrays of one field of m features in K = rank + 1 parameters each. Feature j owns the rows row[ptr[j]] ... row[ptr[j +
// 1] - 1]. Table t holds per row of another unit its factors, behind a first entry of 1 for the first table and 0 for the
// others, padded with zeros to `stride`; code[t] leads there, in the order of `row`.
template <class T>
struct Field {
  int K, m, num_tables;
  int64_t stride;
  const int32_t* ptr;
  const int32_t* row;
  const T* const* table;
  const int32_t* const* code;
  const T* omega;
  T* r;                      // residual per data row, brought up to date
  const T *precision, *mean, *noise;  // (K, m)
  T* theta;                  // (K, m), replaced by the draw
};

// The same for the rows of a relation block: what the data say of a change of each row's summary, and the residual after it.
template <class T>
using RowInformation = void (*)(const Field<T>&, T* packed, int lo, int hi);  // (m, q): triangle of G by rows, then g
template <class T>
using MoveResidual = void (*)(const Field<T>&, const T* moved, int lo, int hi);  // (K, m)

// Draws features lo, ..., hi - 1. Features are independent of each other, so ranges may run side by side.
template <class T>
using UpdateField = void (*)(const Field<T>&, int lo, int hi);

}  // namespace bayesfm
