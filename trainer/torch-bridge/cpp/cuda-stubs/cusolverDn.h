// The types of cusolverDn.h that libtorch's headers name. See README.md.
#pragma once

typedef struct cusolverDnContext* cusolverDnHandle_t;
