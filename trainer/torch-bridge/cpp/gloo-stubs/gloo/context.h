// Declarations for ProcessGroupGloo.hpp. See README.md.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  // Named by an inline member of ProcessGroupGloo; defined in libtorch_cpu.so.
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
