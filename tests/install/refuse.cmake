# For each wrong way to compile a program, the compiler prints one sentence that says what to do, and no further errors.
cmake_policy(VERSION 3.22)
set(compile "${CXX}" -fsyntax-only "-I${PREFIX}/include")
set(tracked -include asio_pulse/hooks/enable_tracking.hpp)
set(program "${SOURCE}/program.cpp")

# refused(SENTENCE ARGUMENT...): expects that compiling fails, with SENTENCE as the only error before the compiler stops.
function(refused sentence)
  execute_process(COMMAND ${compile} ${ARGN} RESULT_VARIABLE result ERROR_VARIABLE said)
  string(REPLACE ";" "," said "${said}")  # a semicolon would make it a list
  string(REGEX MATCHALL "[^\n]*error:[^\n]*" errors "${said}")
  list(LENGTH errors count)
  list(JOIN ARGN " " arguments)
  if(result EQUAL 0 OR NOT count EQUAL 2)
    message(SEND_ERROR "${arguments}: expected one sentence, found:\n${said}")
    return()
  endif()
  list(GET errors 0 first)
  list(GET errors 1 second)
  if(NOT first MATCHES "${sentence}" OR NOT second MATCHES "fatal error: .*the error above says what is missing")
    message(SEND_ERROR "${arguments}: expected \"${sentence}\", found:\n${said}")
  endif()
endfunction()

refused("asio_pulse: needs C\\+\\+20: compile with -std=c\\+\\+20" -std=c++17 ${tracked} "${program}")
refused("asio_pulse: needs C\\+\\+20" -std=c++17 -DASIO_PULSE_EXECUTOR_ONLY "${program}")
refused("asio_pulse: needs C\\+\\+20" -std=c++17 -DASIO_PULSE_DISABLE "${program}")
refused("asio_pulse: needs exceptions, .* compile without -fno-exceptions" -std=c++20 -fno-exceptions ${tracked} "${program}")
refused("asio_pulse: needs exceptions" -std=c++20 -fno-exceptions -DASIO_PULSE_DISABLE "${program}")
refused("asio_pulse: link the CMake target asio_pulse::asio_pulse" -std=c++20 "${program}")
refused("asio_pulse: ASIO_PULSE_DISABLE and BOOST_ASIO_CUSTOM_HANDLER_TRACKING exclude each other" -std=c++20
        -DASIO_PULSE_DISABLE ${tracked} "${program}")

# The same for each header that a program may include first.
file(GLOB headers "${PREFIX}/include/asio_pulse/*.hpp" "${PREFIX}/include/asio_pulse/hooks/registry.hpp")
list(FILTER headers EXCLUDE REGEX "/version.hpp$")  # macros alone
foreach(header IN LISTS headers)
  refused("asio_pulse: needs C\\+\\+20" -std=c++17 -x c++ "${header}")
endforeach()
