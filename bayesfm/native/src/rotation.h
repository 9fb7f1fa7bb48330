// What the rotation of the factors needs; see rotation.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

template <class T>
struct Turns {
  int64_t k, num_groups, rounds, pairs, columns;
  const T* degrees;      // (groups,)
  T rate;
  const int32_t* first;  // (rounds, pairs, 2): the factors that are turned
  const T* u;            // (rounds, pairs, columns): height, place of the interval, quarter turn, points
  T* R;                  // (k, k), turned
  T* S;                  // (groups, k, k), turned
};

template <class T>
using TurnPairs = void (*)(const Turns<T>&);

}  // namespace bayesfm
