# Helper functions of this project's own build. Nothing here is installed.
include_guard(GLOBAL)

# asio_pulse_use_ccache(): compiles through ccache where there is one and nobody chose otherwise. Two checkouts of the
# same sources share what was compiled: paths below the source folder are hashed as relative ones. ccache wants to be
# told that a precompiled header may be believed (its manual, "Precompiled headers").
function(asio_pulse_use_ccache)
  if(DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    return()
  endif()
  find_program(ASIO_PULSE_CCACHE ccache)
  mark_as_advanced(ASIO_PULSE_CCACHE)
  if(NOT ASIO_PULSE_CCACHE)
    return()
  endif()
  set(launcher "${PROJECT_BINARY_DIR}/ccache_launcher")
  file(
    CONFIGURE
    OUTPUT "${launcher}"
    CONTENT
      [[#!/bin/sh
CCACHE_BASEDIR='@PROJECT_SOURCE_DIR@' CCACHE_NOHASHDIR=1 \
CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime exec '@ASIO_PULSE_CCACHE@' "$@"
]]
    @ONLY)
  file(CHMOD "${launcher}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
                                       WORLD_EXECUTE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${launcher}" PARENT_SCOPE)
endfunction()

# asio_pulse_precompile(TARGET HEADER...): precompiles other people's headers for a program of the tests, which would
# else spend a fifth of its compile time on reading them.
function(asio_pulse_precompile target)
  if(NOT ASIO_PULSE_PRECOMPILE)
    return()
  endif()
  target_precompile_headers(${target} PRIVATE ${ARGN})
  asio_pulse_precompiled(${target})
endfunction()

# asio_pulse_precompiled(TARGET): what using a precompiled header takes.
function(asio_pulse_precompiled target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # for ccache
  endif()
endfunction()

# asio_pulse_use_sanitizers(LIST): the whole build, tests and benches too, under -fsanitize=LIST.
function(asio_pulse_use_sanitizers sanitizers)
  if(NOT sanitizers)
    return()
  endif()
  string(REPLACE ";" "," sanitizers "${sanitizers}")
  set(flags -fsanitize=${sanitizers} -fno-omit-frame-pointer)
  if(sanitizers MATCHES "undefined")
    list(APPEND flags -fno-sanitize-recover=undefined)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # gcc 12 takes the address of a thread_local with the initial-exec model for null in some inlined
      # places. A null pointer that is really used still ends in AddressSanitizer's SEGV report.
      list(APPEND flags -fno-sanitize=null)
    endif()
  endif()
  if(sanitizers MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Boost.Asio's fences: TSan does not model them, and gcc says so at every one.
    list(APPEND flags -Wno-tsan)
  endif()
  add_compile_options(${flags})
  add_link_options(-fsanitize=${sanitizers})
endfunction()

# asio_pulse_warnings(TARGET): the project's warnings, for its own targets only. Whether they are
# errors is CMake's own CMAKE_COMPILE_WARNING_AS_ERROR, which the presets set.
function(asio_pulse_warnings target)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    return()
  endif()
  target_compile_options(
    ${target}
    PRIVATE -Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wconversion
            -Wsign-conversion
            -Wold-style-cast
            -Wnon-virtual-dtor
            -Woverloaded-virtual
            -Wcast-align
            -Wcast-qual
            -Wformat=2
            -Wdouble-promotion
            -Wundef
            -Wimplicit-fallthrough)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wduplicated-cond -Wlogical-op -Wextra-semi)
  else()
    target_compile_options(${target} PRIVATE -Wextra-semi)
    if(NOT ASIO_PULSE_SANITIZE)  # under one, some tests end with their first line
      target_compile_options(${target} PRIVATE -Wunreachable-code)
    endif()
  endif()
endfunction()

# asio_pulse_setup_library(TARGET EXPORT_NAME E OUTPUT_NAME O [EXPORT SET]): what the modules' compiled
# libraries have in common. Users know the library as asio_pulse::E; its public headers lie in include/ of
# its folder.
function(asio_pulse_setup_library target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "EXPORT_NAME;OUTPUT_NAME;EXPORT" "")
  get_target_property(folder ${target} SOURCE_DIR)
  # Position independent even when static: a static hooks library goes into a shared asio_pulse.
  set_target_properties(
    ${target}
    PROPERTIES EXPORT_NAME ${arg_EXPORT_NAME}
               OUTPUT_NAME ${arg_OUTPUT_NAME}
               POSITION_INDEPENDENT_CODE ON
               VERSION ${PROJECT_VERSION}
               SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${folder}/include>"
                                              "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  asio_pulse_warnings(${target})
  asio_pulse_install_target(${target} ${arg_EXPORT})
  if(ASIO_PULSE_INSTALL)
    install(
      DIRECTORY "${folder}/include/"
      DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
      FILES_MATCHING
      PATTERN "*.hpp"
      PATTERN "*.h")
  endif()
endfunction()

# asio_pulse_bpf_object(SOURCE CLANG SKELETON): the header SKELETON, which holds the object, from X.bpf.c by
# that clang; its names begin with X_bpf. The sources' types are their own: no kernel is needed for it.
function(asio_pulse_bpf_object source clang skeleton)
  get_filename_component(name "${source}" NAME_WE)
  get_filename_component(folder "${skeleton}" DIRECTORY)
  set(object "${folder}/${name}.bpf.o")
  set(module "${PROJECT_SOURCE_DIR}/bpf")
  set(arch arm64)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    set(arch x86)
  endif()
  file(MAKE_DIRECTORY "${folder}")
  file(GLOB headers CONFIGURE_DEPENDS "${module}/src/*.h" "${module}/include/asio_pulse/bpf/*.h")
  add_custom_command(
    OUTPUT "${skeleton}"
    COMMAND
      "${clang}" -g -O2 -target bpf -mcpu=v3 -ffreestanding -std=gnu11 -Wall -Wextra -Werror
      -D__TARGET_ARCH_${arch} "-I${module}/include" "-I${module}/src" -idirafter
      "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}" -c "${source}" -o "${object}"
    COMMAND "${ASIO_PULSE_LLVM_STRIP}" -g "${object}"
    # Generated: not ours to lint.
    COMMAND "${CMAKE_COMMAND}" -E echo "// NOLINTBEGIN" > "${skeleton}"
    COMMAND "${ASIO_PULSE_BPFTOOL}" gen skeleton "${object}" name ${name}_bpf >> "${skeleton}"
    COMMAND "${CMAKE_COMMAND}" -E echo "// NOLINTEND" >> "${skeleton}"
    DEPENDS "${source}" ${headers}
    COMMENT "Building ${name}.bpf.c with ${clang}"
    VERBATIM)
endfunction()

# asio_pulse_add_interface(NAME EXPORT_NAME): an interface target that is installed like a library.
function(asio_pulse_add_interface name export_name)
  add_library(${name} INTERFACE)
  add_library(asio_pulse::${export_name} ALIAS ${name})
  set_target_properties(${name} PROPERTIES EXPORT_NAME ${export_name})
  target_compile_features(${name} INTERFACE cxx_std_20)
  asio_pulse_install_target(${name})
endfunction()

# asio_pulse_install_target(TARGET [SET]): into the export set that asio_pulseConfig.cmake reads, or into
# that of a component.
function(asio_pulse_install_target target)
  if(NOT ASIO_PULSE_INSTALL)
    return()
  endif()
  set(set asio_pulseTargets)
  if(ARGC GREATER 1)
    set(set "${ARGV1}")
  endif()
  install(
    TARGETS ${target}
    EXPORT ${set}
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endfunction()

# asio_pulse_install_package(): the package files: CMake's and pkg-config's, both relocatable.
function(asio_pulse_install_package)
  include(CMakePackageConfigHelpers)
  set(templates "${PROJECT_SOURCE_DIR}/asio_pulse/cmake")
  set(cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/asio_pulse")

  get_property(have_libdw GLOBAL PROPERTY asio_pulse_have_libdw)
  install(
    EXPORT asio_pulseTargets
    NAMESPACE asio_pulse::
    DESTINATION "${cmake_dir}")
  get_property(have_prometheus GLOBAL PROPERTY asio_pulse_have_prometheus)
  if(have_prometheus)
    install(
      EXPORT asio_pulsePrometheusTargets
      NAMESPACE asio_pulse::
      DESTINATION "${cmake_dir}")
  endif()
  configure_package_config_file(
    "${templates}/asio_pulseConfig.cmake.in" "${PROJECT_BINARY_DIR}/asio_pulseConfig.cmake"
    INSTALL_DESTINATION "${cmake_dir}")
  # Before 1.0 a minor version may change the API.
  write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/asio_pulseConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
  install(FILES "${PROJECT_BINARY_DIR}/asio_pulseConfig.cmake"
                "${PROJECT_BINARY_DIR}/asio_pulseConfigVersion.cmake" DESTINATION "${cmake_dir}")
  if(have_libdw)
    install(FILES "${templates}/Findlibdw.cmake" DESTINATION "${cmake_dir}")
  endif()

  set(pkg_config_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
  file(RELATIVE_PATH pc_prefix "/prefix/${pkg_config_dir}" "/prefix")
  string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
  set(pc_definitions "")
  if(ASIO_PULSE_ALWAYS_PREEMPT)
    set(pc_definitions " -DASIO_PULSE_ALWAYS_PREEMPT=1")
  endif()
  # A static library's own needs are its user's: named in Requires, not in Requires.private.
  set(pc_requires "")
  set(pc_requires_private "")
  set(pc_needed "fmt")
  if(have_libdw)
    string(APPEND pc_needed ", libdw")
  endif()
  if(BUILD_SHARED_LIBS)
    set(pc_requires_private "${pc_needed}")
  else()
    set(pc_requires "${pc_needed}")
  endif()
  configure_file("${templates}/asio_pulse.pc.in" "${PROJECT_BINARY_DIR}/asio_pulse.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/asio_pulse.pc" DESTINATION "${pkg_config_dir}")
  install(FILES "${PROJECT_SOURCE_DIR}/LICENSE"
          DESTINATION "${CMAKE_INSTALL_DATAROOTDIR}/doc/asio_pulse")
endfunction()
