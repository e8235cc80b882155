package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1"
)

// machine is what an ELF header says of an architecture.
type machine struct {
	elf   elf.Machine
	order binary.ByteOrder
}

// machines are the architectures, by Go's name, that need no variant beside it.
func machines() map[string]machine {
	return map[string]machine{
		"amd64":   {elf.EM_X86_64, binary.LittleEndian},
		"arm64":   {elf.EM_AARCH64, binary.LittleEndian},
		"ppc64le": {elf.EM_PPC64, binary.LittleEndian},
		"riscv64": {elf.EM_RISCV, binary.LittleEndian},
		"s390x":   {elf.EM_S390, binary.BigEndian},
	}
}

func architectures() []string {
	return slices.Sorted(maps.Keys(machines()))
}

// readBinary reads a program that can run where nothing else is: a static executable of the platform.
func readBinary(path string, platform v1.Platform) ([]byte, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the binary: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("%s is no Linux program (%w)", path, err)
	}
	if file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%s is no program, but an ELF file of type %s", path, file.Type)
	}
	if got := platformOf(program, file); got != platform.String() {
		return nil, fmt.Errorf("%s was built for %s, not for %s: give that as --platform, or build it anew", path, got, platform)
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("%s is no Linux program (%w)", path, err)
	}
	interpreted := slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if interpreted || len(libraries) > 0 {
		return nil, fmt.Errorf("%s is dynamically linked, and nothing that it needs is in the image: build it with CGO_ENABLED=0", path)
	}
	return program, nil
}

// platformOf says what a binary was built for. Its ELF header tells the architecture, but systems hardly: Go's build
// information does, and what has none is taken for Linux unless its header names another.
func platformOf(program []byte, file *elf.File) string {
	os := "linux"
	if file.OSABI != elf.ELFOSABI_NONE && file.OSABI != elf.ELFOSABI_LINUX {
		os = file.OSABI.String()
	}
	if info, err := buildinfo.Read(bytes.NewReader(program)); err == nil {
		for _, setting := range info.Settings {
			if setting.Key == "GOOS" {
				os = setting.Value
			}
		}
	}
	for arch, m := range machines() {
		if m.elf == file.Machine && m.order == file.ByteOrder && file.Class == elf.ELFCLASS64 {
			return os + "/" + arch
		}
	}
	return os + "/" + file.Machine.String()
}
