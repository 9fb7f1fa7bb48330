// What the features of a relation block need; see table.cc.
#pragma once

#include <cstdint>

#include "field.h"

namespace bayesfm {

// A block of m rows and p features in K = rank + 1 parameters each. Feature j has the entries ptr[j] ... ptr[j + 1] - 1, on
// block rows `row` with values `value`. `information` holds, per block row, the triangle of G by rows, then g: what the
// data say of a change of the row's summary (E, Q).
template <class T>
struct Table {
  int K;
  int64_t m, p;
  const int32_t* ptr;
  const int32_t* row;
  const T* value;
  const T* information;                // (m, q)
  const T* Q;                          // (K - 1, m): of the block's own rows, at the present theta
  GroupPrior<T> prior;
  const T* noise;                      // (K, p)
  T* theta;                            // (K, p), replaced by the draws, one feature after the other
  T* moved;                            // (K, m): how far each row's summary has moved
};

template <class T>
using UpdateTable = void (*)(const Table<T>&);

}  // namespace bayesfm
