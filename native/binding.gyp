# CPU only; the same sources.json as CMakeLists.txt.
{
  'targets': [{
    'target_name': 'tesra_native',
    'sources': [ "<!@(node -p \"const s=require('./sources.json');[...s.cpu,...s.cudaStub].join(' ')\")" ],
    'include_dirs': [ "<!(node -p \"require('node-addon-api').include_dir\")" ],
    'defines': [ 'NAPI_VERSION=8', 'NAPI_DISABLE_CPP_EXCEPTIONS' ],
    'cflags_cc': [ '-std=c++17', '-O3', '-fexceptions', '-ffp-contract=off', '-fno-math-errno', '-fvisibility=hidden',
                   '-Wno-maybe-uninitialized', '-Wno-uninitialized' ],
    'cflags_cc!': [ '-fno-rtti', '-fno-exceptions' ],
    'conditions': [
      ['OS=="linux"', {'ldflags': ['-static-libstdc++', '-Wl,--exclude-libs,ALL', '-pthread']}],
      ['OS=="mac"', {'xcode_settings': {'CLANG_CXX_LANGUAGE_STANDARD': 'c++17', 'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES', 'GCC_ENABLE_CPP_EXCEPTIONS': 'YES', 'OTHER_CPLUSPLUSFLAGS': ['-ffp-contract=off']}}],
      ['OS=="win"', {'msvs_settings': {'VCCLCompilerTool': {'AdditionalOptions': ['/std:c++17'], 'ExceptionHandling': 1}}}]
    ]
  }]
}
