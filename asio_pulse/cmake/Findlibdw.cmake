# Findlibdw: elfutils' libdw, which unwinds and names the stacks of stuck threads. Installed beside
# asio_pulseConfig.cmake, because whoever links the static library needs it too.
#
# Defines the target libdw::libdw, libdw_FOUND and libdw_VERSION. libdw_LIBRARY and libdw_INCLUDE_DIR
# can be set to choose one.
find_path(libdw_INCLUDE_DIR NAMES elfutils/libdwfl.h)
find_library(libdw_LIBRARY NAMES dw)
mark_as_advanced(libdw_INCLUDE_DIR libdw_LIBRARY)

if(libdw_INCLUDE_DIR AND EXISTS "${libdw_INCLUDE_DIR}/elfutils/version.h")
  file(STRINGS "${libdw_INCLUDE_DIR}/elfutils/version.h" libdw_VERSION
       REGEX "^#define _ELFUTILS_VERSION[ \t]+[0-9]+")
  string(REGEX REPLACE "^#define _ELFUTILS_VERSION[ \t]+([0-9]+).*" "0.\\1" libdw_VERSION
                       "${libdw_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  libdw
  REQUIRED_VARS libdw_LIBRARY libdw_INCLUDE_DIR
  VERSION_VAR libdw_VERSION)

if(libdw_FOUND AND NOT TARGET libdw::libdw)
  add_library(libdw::libdw UNKNOWN IMPORTED)
  set_target_properties(libdw::libdw PROPERTIES IMPORTED_LOCATION "${libdw_LIBRARY}"
                                                INTERFACE_INCLUDE_DIRECTORIES "${libdw_INCLUDE_DIR}")
endif()
