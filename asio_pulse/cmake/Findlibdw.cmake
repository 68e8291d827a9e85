# Findlibdw: elfutils' libdw, which unwinds the stacks of stuck threads and names their frames. It is
# installed beside asio_pulseConfig.cmake, because users of the static library need it, too.
#
# Defines the target libdw::libdw, with the libelf that comes with it, libdw_FOUND and libdw_VERSION.
# libdw_LIBRARY, libdw_ELF_LIBRARY and libdw_INCLUDE_DIR can be set to choose one. libdw_USE_STATIC_LIBS selects the static
# libraries and their dependencies.
find_path(libdw_INCLUDE_DIR NAMES elfutils/libdwfl.h)
set(libdw_needed "")
if(libdw_USE_STATIC_LIBS)
  find_library(libdw_LIBRARY NAMES libdw.a)
  find_library(libdw_ELF_LIBRARY NAMES libelf.a)
  foreach(name IN ITEMS lzma bz2 z)
    find_library(libdw_${name}_LIBRARY NAMES lib${name}.a)
    mark_as_advanced(libdw_${name}_LIBRARY)
    list(APPEND libdw_needed libdw_${name}_LIBRARY)
  endforeach()
else()
  find_library(libdw_LIBRARY NAMES dw)
  find_library(libdw_ELF_LIBRARY NAMES elf)
endif()
mark_as_advanced(libdw_INCLUDE_DIR libdw_LIBRARY libdw_ELF_LIBRARY)

if(libdw_INCLUDE_DIR AND EXISTS "${libdw_INCLUDE_DIR}/elfutils/version.h")
  file(STRINGS "${libdw_INCLUDE_DIR}/elfutils/version.h" libdw_VERSION
       REGEX "^#define _ELFUTILS_VERSION[ \t]+[0-9]+")
  string(REGEX REPLACE "^#define _ELFUTILS_VERSION[ \t]+([0-9]+).*" "0.\\1" libdw_VERSION
                       "${libdw_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  libdw
  REQUIRED_VARS libdw_LIBRARY libdw_ELF_LIBRARY libdw_INCLUDE_DIR ${libdw_needed}
  VERSION_VAR libdw_VERSION)

if(libdw_FOUND AND NOT TARGET libdw::libdw)
  set(libdw_libraries "${libdw_ELF_LIBRARY}")
  foreach(variable IN LISTS libdw_needed)
    list(APPEND libdw_libraries "${${variable}}")
  endforeach()
  add_library(libdw::libdw UNKNOWN IMPORTED)
  set_target_properties(
    libdw::libdw
    PROPERTIES IMPORTED_LOCATION "${libdw_LIBRARY}"
               INTERFACE_LINK_LIBRARIES "${libdw_libraries}"
               INTERFACE_INCLUDE_DIRECTORIES "${libdw_INCLUDE_DIR}")
endif()
