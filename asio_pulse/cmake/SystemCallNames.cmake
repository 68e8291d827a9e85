# asio_pulse_system_call_names(FILE): writes the names of the system calls in the compiler's headers, with one
# ASIO_PULSE_SYSTEM_CALL(name) for each SYS_name, in the order of the headers.
function(asio_pulse_system_call_names file)
  set(source "${CMAKE_CURRENT_BINARY_DIR}/system_calls.cpp")
  file(WRITE "${source}" "#include <sys/syscall.h>\n")
  separate_arguments(flags NATIVE_COMMAND "${CMAKE_CXX_FLAGS}")
  set(sysroot "")
  if(CMAKE_SYSROOT)
    set(sysroot "--sysroot=${CMAKE_SYSROOT}")
  endif()
  set(target "")
  if(CMAKE_CXX_COMPILER_TARGET)
    set(target "--target=${CMAKE_CXX_COMPILER_TARGET}")
  endif()
  execute_process(
    COMMAND "${CMAKE_CXX_COMPILER}" ${flags} ${sysroot} ${target} -E -dM "${source}"
    OUTPUT_VARIABLE macros
    RESULT_VARIABLE result)
  string(REGEX MATCHALL "#define SYS_[a-z0-9_]+ " defined "${macros}")
  list(LENGTH defined count)
  if(NOT result EQUAL 0 OR count LESS 200)
    message(FATAL_ERROR "The compiler does not list the system calls of <sys/syscall.h> (${count} found)")
  endif()
  list(TRANSFORM defined REPLACE "#define SYS_([a-z0-9_]+) " "ASIO_PULSE_SYSTEM_CALL(\\1)")
  list(JOIN defined "\n" text)
  file(CONFIGURE OUTPUT "${file}" CONTENT "${text}\n" @ONLY)
endfunction()
