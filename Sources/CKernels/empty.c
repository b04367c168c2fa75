#include "w2svd_kernels.h"
typedef int w2svd_translation_unit_is_not_empty;
