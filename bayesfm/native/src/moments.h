// What the hyperparameters need of the features; see moments.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Of row i of theta (K, m), per group (sorted, G of them): mean, and sum of squares around it.
template <class T>
using GroupMoments = void (*)(const T* row, const int32_t* group, int64_t m, int64_t num_groups, T* mean, T* scatter);

}  // namespace bayesfm
