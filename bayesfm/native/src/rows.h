// What the linear predictor needs; see rows.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Table t holds the summaries (E, Q) of another unit's rows, padded with zeros to `stride`; code[t] leads there from every
// data row.
template <class T>
struct Rows {
  int num_tables;
  int64_t stride;
  const T* const* table;
  const int32_t* const* code;
  T w0;
  T* eta;
};

template <class T>
using LinearPredictor = void (*)(const Rows<T>&, int64_t lo, int64_t hi);

}  // namespace bayesfm
