# cmake -D OUT=embed.c -D FILES=name=path,name=path -P embed.cmake: each file as a byte array.
string(REPLACE "," ";" FILES "${FILES}")
set(text "#include \"deploy/embed.h\"\n")
foreach(pair IN LISTS FILES)
  string(REGEX REPLACE "=.*" "" name "${pair}")
  string(REGEX REPLACE "^[^=]*=" "" path "${pair}")
  file(READ "${path}" hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(APPEND text "const char embed_${name}[] = { ${bytes} 0 };\n"
    "const size_t embed_${name}_n = sizeof(embed_${name}) - 1;\n")
endforeach()
file(WRITE "${OUT}" "${text}")
