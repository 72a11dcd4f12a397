"""Run untrusted programs.

What runs here and what runs in there: `box` and `levels` belong to this process; `zygote`, `confine`, `candidate`,
`tester` and `codec` run inside the sandbox too and import nothing but the standard library.

```
this process ── box.Sandbox ──socket──> zygote            started once, holds no secret, never runs foreign code
                     │                    └─ keeper       one for each program: waits, and kills it when told to
                     │                         └─ program  confined for good before it reads a line of foreign code
                     └── pipes and memory files ──────────┘
```
"""
