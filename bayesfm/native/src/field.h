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

// Systems of kSideBySide features side by side, for every number that is kept of them: room for the widest vectors.
constexpr int kSideBySide = 16;

// Numbers kept of a feature: the triangle of L but for its last entry, and the right-hand side.
constexpr int64_t kept(int64_t k) { return k * (k + 1) / 2 + 2 * k; }

// What is left of a feature when all factors but v_f, f the last, are eliminated: C_ff, C_fw, C_ww, D_f, D_w of
// exp(-(C_ff v_f^2 + 2 C_fw v_f w + C_ww w^2) / 2 + D_f v_f + D_w w), without the priors of the two.
constexpr int kCorner = 5;

// A one-hot field whose factors are eliminated but for the last one.
template <class T>
struct Elimination {
  OwnedRows<T> rows;
  GroupPrior<T> prior;  // those of w and of the last factor are not read
  int last;             // in 0, ..., k - 1; 0 where there is none
  const T* omega;
  const T* r;      // residual per data row
  const T* theta;  // (K, m), K = k + 1
  T* systems;      // (ceil(m / kSideBySide), kept(k), kSideBySide)
  T* corner;       // (kCorner, m)
};

// The draw of all parameters from there: P and b, the precision and linear term of w with v integrated out, and the column of
// v_f in the Cholesky factor, 1 / L_ff, L_wf and the right-hand side.
template <class T>
struct Substitution {
  OwnedRows<T> rows;
  int last;
  const T* systems;
  const T* ends;   // (kCorner, m)
  const T* noise;  // (K, m)
  T* theta;        // (K, m), replaced by the draw
  T* r;            // brought up to date
};

// Features lo, ..., hi - 1, lo a multiple of kSideBySide. Features are independent of each other, so ranges may run side by side.
template <class T>
using EliminateField = void (*)(const Elimination<T>&, int lo, int hi);
template <class T>
using SubstituteField = void (*)(const Substitution<T>&, int lo, int hi);

// For the rows of a relation block: what the data say of a change of each row's summary (m, q): triangle of G by rows, then g;
// and the residual after the change `moved` (K, m).
template <class T>
using RowInformation = void (*)(const OwnedRows<T>&, const T* omega, const T* r, T* packed, int lo, int hi);
template <class T>
using MoveRows = void (*)(const OwnedRows<T>&, const T* moved, T* r, int lo, int hi);

}  // namespace bayesfm
