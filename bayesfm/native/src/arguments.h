// What XLA hands over, checked: element types, shapes, and leading batch dimensions.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace bayesfm {

constexpr int64_t kAny = -1;

template <class T>
constexpr xla::ffi::DataType kTypeOf = xla::ffi::DataType::INVALID;
template <>
inline constexpr xla::ffi::DataType kTypeOf<float> = xla::ffi::DataType::F32;
template <>
inline constexpr xla::ffi::DataType kTypeOf<double> = xla::ffi::DataType::F64;
template <>
inline constexpr xla::ffi::DataType kTypeOf<int32_t> = xla::ffi::DataType::S32;
template <>
inline constexpr xla::ffi::DataType kTypeOf<uint32_t> = xla::ffi::DataType::U32;

// One operand or result for every member of a batch; an operand that is the same for all has a leading dimension of one.
template <class T>
struct Batched {
  T* data = nullptr;
  std::vector<int64_t> dims, strides;  // of one member; of the batch dimensions
  int64_t size = 0;                    // of one member

  int64_t dim(size_t i) const { return i < dims.size() ? dims[i] : 0; }
};

// The arguments of one call. Mistakes are collected in wrong(); nothing may be read once there is one.
class Arguments {
 public:
  // own_dims: how many dimensions argument 0 has without a batch.
  Arguments(xla::ffi::RemainingArgs args, xla::ffi::RemainingRets rets, size_t own_dims) : args_(args), rets_(rets) {
    auto first = args_.get<xla::ffi::AnyBuffer>(0);
    if (!first.has_value() || first->dimensions().size() < own_dims) {
      wrong_ = "the first argument has too few dimensions";
      return;
    }
    batch_.assign(first->dimensions().size() - own_dims, 1);
    for (size_t i = 0; i < args_.size(); ++i) {
      auto x = args_.get<xla::ffi::AnyBuffer>(i);
      if (!x.has_value() || x->dimensions().size() < batch_.size()) {
        refuse("argument " + std::to_string(i) + " lacks the batch dimensions");
        return;
      }
      for (size_t d = 0; d < batch_.size(); ++d) batch_[d] = std::max(batch_[d], x->dimensions()[d]);
    }
    for (int64_t d : batch_) members_ *= d;
  }

  size_t num_args() const { return args_.size(); }
  int64_t members() const { return members_; }
  const std::string& wrong() const { return wrong_; }
  void refuse(const std::string& what) {
    if (wrong_.empty()) wrong_ = what;
  }
  void expect(bool condition, const std::string& what) {
    if (!condition) refuse(what);
  }

  template <class T>
  Batched<const T> in(size_t i, const std::string& name, const std::vector<int64_t>& dims) {
    if (i >= args_.size()) {
      refuse(name + " is missing");
      return {};
    }
    auto x = args_.get<xla::ffi::AnyBuffer>(i);
    if (!x.has_value()) {
      refuse(name + " is no array");
      return {};
    }
    return read<const T>(*x, name, dims);
  }

  // Where things start and where the last one ends. Of an empty array kAny things would follow, of any shape.
  Batched<const int32_t> pointers(size_t i) {
    const auto ptr = in<int32_t>(i, "ptr", {kAny});
    expect(ptr.dim(0) >= 1, "ptr must hold where things start and where the last one ends, and is empty");
    return ptr;
  }

  template <class T>
  Batched<T> out(size_t i, const std::string& name, const std::vector<int64_t>& dims) {
    auto x = rets_.get<xla::ffi::AnyBuffer>(i);
    if (!x.has_value()) {
      refuse(name + " is missing");
      return {};
    }
    return read<T>(**x, name, dims);
  }

  // Member b of the batch.
  template <class T>
  T* at(const Batched<T>& x, int64_t b) const {
    int64_t offset = 0;
    for (size_t d = batch_.size(); d-- > 0; b /= batch_[d]) offset += b % batch_[d] * x.strides[d];
    return x.data + offset;
  }

  // A result that begins as a copy of an operand, unless XLA gave both the same memory.
  template <class T>
  void start_from(const Batched<T>& result, const Batched<const T>& operand) const {
    if (result.data == operand.data) return;
    for (int64_t b = 0; b < members_; ++b) std::memcpy(at(result, b), at(operand, b), sizeof(T) * operand.size);
  }

 private:
  template <class T, class Buffer>
  Batched<T> read(const Buffer& x, const std::string& name, const std::vector<int64_t>& dims) {
    typedef std::remove_const_t<T> Element;
    Batched<T> out;
    if (!wrong_.empty()) return out;
    const auto all = x.dimensions();
    if (x.element_type() != kTypeOf<Element>) {
      refuse(name + " has the wrong element type");
      return out;
    }
    bool right = all.size() == batch_.size() + dims.size();
    for (size_t d = 0; right && d < dims.size(); ++d)
      right = dims[d] == kAny || dims[d] == all[batch_.size() + d];
    for (size_t d = 0; right && d < batch_.size(); ++d) right = all[d] == 1 || all[d] == batch_[d];
    if (!right) {
      refuse(name + " has the wrong shape");
      return out;
    }
    out.size = 1;
    for (size_t d = 0; d < dims.size(); ++d) {
      out.dims.push_back(all[batch_.size() + d]);
      out.size *= out.dims.back();
    }
    int64_t stride = out.size;
    out.strides.assign(batch_.size(), 0);
    for (size_t d = batch_.size(); d-- > 0; stride *= all[d]) out.strides[d] = all[d] == 1 ? 0 : stride;
    out.data = static_cast<T*>(const_cast<void*>(static_cast<const void*>(x.untyped_data())));
    return out;
  }

  xla::ffi::RemainingArgs args_;
  xla::ffi::RemainingRets rets_;
  std::vector<int64_t> batch_;
  int64_t members_ = 1;
  std::string wrong_;
};

// Tables and codes, alternating, from argument `first` on.
template <class T>
struct Tables {
  std::vector<Batched<const T>> table;
  std::vector<Batched<const int32_t>> code;
  int64_t stride = 0;

  Tables(Arguments& a, size_t first, int64_t rows, int64_t rank) {
    a.expect(rank >= 0, "theta needs a row for w");
    if (a.num_args() <= first || (a.num_args() - first) % 2) {
      a.refuse("a table and a code are needed for every unit");
      return;
    }
    for (size_t i = first; i < a.num_args(); i += 2) {
      table.push_back(a.in<T>(i, "a table", {kAny, i == first ? kAny : stride}));
      code.push_back(a.in<int32_t>(i + 1, "a code", {rows}));
      stride = table.back().dim(1);
    }
    check_stride(a, stride, rank);
  }

  static void check_stride(Arguments& a, int64_t stride, int64_t rank) {
    const int64_t full = 64 / sizeof(T), least = 16 / sizeof(T);
    const bool piece = stride >= least && stride <= full && (stride & (stride - 1)) == 0;
    a.expect(stride >= rank && (piece || (stride > 0 && stride % full == 0)),
             "rows of tables must have a length of 16, 32 or a multiple of 64 bytes, and no less than the rank");
  }
};

}  // namespace bayesfm
