// The arithmetic of norm_silu.cpp on plain memory: rows of channels, one row per pixel. No libtorch here, so that
// norm_silu_kernels.cpp can be compiled for several instruction sets without their code getting into shared inline
// functions.
//
// Sums are of at most one chunk of rows; the caller adds chunks up in their order, so that no result depends on
// how many threads there are.
#pragma once

#include <cstdint>

namespace torch_bridge::kernels {

// The 16 high bits of a float.
enum class bfloat16 : std::uint16_t {};

// Per channel: y = (x - mean) * scale + bias.
struct Affine {
  const float* mean;
  const float* scale;
  const float* bias;
};

// Per channel: grad_x = grad_y * scale + (x - mean) * slope + offset.
struct Backward {
  const float* mean;
  const float* scale;
  const float* slope;
  const float* offset;
};

// Rows that begin `stride` elements apart; none where first is null.
template <class T>
struct Rows {
  T* first;
  std::int64_t stride;
};

// For elements of type T, compiled for one kind of machine.
template <class T>
struct Kernels {
  // Adds x - shift and its square, over the rows, to one number per channel each.
  void (*moments)(
      Rows<const T> x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square);

  // out = y * sigmoid(y), and what is added to that, if anything.
  void (*forward)(
      Rows<const T> x, std::int64_t rows, std::int64_t channels, Affine affine, Rows<const T> added, Rows<T> out);

  // From the gradient of out, in one summand or two, that of y; adds it, and its product with x - mean, to one number
  // per channel each.
  void (*backward_y)(
      Rows<const T> x, Rows<const T> grad_out, Rows<const T> other, std::int64_t rows, std::int64_t channels,
      Affine affine, Rows<T> grad_y, float* sum, float* product);

  // Turns the gradient of y into that of x, in place.
  void (*backward_x)(Rows<const T> x, std::int64_t rows, std::int64_t channels, Backward backward, Rows<T> grad);
};

// All kernels.
struct Machine {
  // As GCC calls the instruction set.
  const char* name;
  Kernels<float> of_float;
  Kernels<bfloat16> of_bfloat16;

  // The same on all machines that multiply and add in one step.
  double (*sum_of_squares)(const float* values, std::int64_t count);

  template <class T>
  const Kernels<T>& of() const;
};

template <>
inline const Kernels<float>& Machine::of<float>() const {
  return of_float;
}

template <>
inline const Kernels<bfloat16>& Machine::of<bfloat16>() const {
  return of_bfloat16;
}

// What the kernels run as: the best that this machine knows, or what `use_machine` said.
const Machine& machine();

// Has the kernels run as an instruction set, for tests and measurements: false where the machine does not know it, or
// they were not compiled for it. Not while they run.
bool use_machine(const char* name);

} // namespace torch_bridge::kernels
