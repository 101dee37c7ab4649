// Included by ProcessGroupGloo.hpp, which needs nothing from it. See README.md.
#pragma once
