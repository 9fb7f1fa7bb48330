// What the linear predictor needs; see rows.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Unit t has the summaries (E, Q) of its own rows: E[t], and Q[t] in rows of `stride` numbers, padded with zeros; code[t] leads
// there from every data row.
template <class T>
struct Rows {
  int num_units;
  int64_t stride;
  const T* const* E;
  const T* const* Q;
  const int32_t* const* code;
  T w0;
  T* eta;
};

template <class T>
using LinearPredictor = void (*)(const Rows<T>&, int64_t lo, int64_t hi);

}  // namespace bayesfm
