// What a field's update needs; see field.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// What leads from the data rows to the factors of all other units: per table one row of `stride` numbers for each row of that
// unit, padded with zeros; code[t] leads there.
template <class T>
struct Others {
  int num_tables;
  int64_t stride;
  const T* const* table;
  const int32_t* const* code;
};

// Gaussian prior of features, given the hyperparameters of their groups.
template <class T>
struct GroupPrior {
  int64_t num_groups;
  const int32_t* group;               // per feature
  const T *precision, *mean;          // (K, num_groups)
};

// Feature j of m owns the rows row[ptr[j]] ... row[ptr[j + 1] - 1]; the codes stand in the order of `row`.
template <class T>
struct OwnedRows {
  int k;  // the rank
  int64_t m;
  const int32_t* ptr;
  const int32_t* row;
  Others<T> others;
};

// A draw of all features of a one-hot field.
template <class T>
struct Field {
  OwnedRows<T> rows;
  GroupPrior<T> prior;
  const T* omega;
  T* r;            // residual per data row, brought up to date
  const T* noise;  // (K, m), K = k + 1
  T* theta;        // (K, m), replaced by the draw
};

// Draws features lo, ..., hi - 1. Features are independent of each other, so ranges may run side by side.
template <class T>
using UpdateField = void (*)(const Field<T>&, int lo, int hi);

// For the rows of a relation block: what the data say of a change of each row's summary (m, q): triangle of G by rows, then g;
// and the residual after the change `moved` (K, m).
template <class T>
using RowInformation = void (*)(const OwnedRows<T>&, const T* omega, const T* r, T* packed, int lo, int hi);
template <class T>
using MoveRows = void (*)(const OwnedRows<T>&, const T* moved, T* r, int lo, int hi);

}  // namespace bayesfm
