#include "formats/encode.h"
