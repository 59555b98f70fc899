package hardware

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/pkcs11"
)

// Profile is what Sallyport knows of one vendor's module. Everything in it was measured on the version it names, and the
// light probe measures it again at each start.
type Profile struct {
	// Name is what --profile takes.
	Name string
	// Vendor and Versions are for people. Versions are those on which the facts were measured.
	Vendor, Versions string
	// Modules are the places where the vendor's packages put the library, most usual first.
	Modules []string
	// Erase tells an operator how to empty a token, in the vendor's own words.
	Erase string
	// Notes are what an operator must know besides.
	Notes []string

	facts pkcs11.Profile
	// environment names the variables that the module reads. Workers get these and no others.
	environment []string
	// folder finds the token folder, for modules that keep objects in files which they do not flush.
	folder func() (string, error)
	// list adds to a survey what the vendor's own tool knows, which is more than can be had without a PIN otherwise.
	list func(context.Context, *Survey)
}

// softHSM are the facts of SoftHSM 2.6.1 as Debian 12 ships it (softhsm2 2.6.1-2.1, OpenSSL backend), measured with
// github.com/miekg/pkcs11 v1.1.2 on two cores.
var softHSM = Profile{
	Name:     "softhsm",
	Vendor:   "SoftHSM, a token in software",
	Versions: "2.6.1",
	Modules: []string{
		"/usr/lib/softhsm/libsofthsm2.so",                  // Debian, Ubuntu
		"/usr/lib64/pkcs11/libsofthsm2.so",                 // Fedora, RHEL
		"/usr/lib64/libsofthsm2.so",                        //
		"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", // Debian, the file behind the link
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", // built from source
	},
	Erase: "softhsm2-util --delete-token --serial SERIAL, with the SOFTHSM2_CONF that the vault uses",
	Notes: []string{
		"SoftHSM keeps keys in files under the user's PIN: whoever has the PIN and the folder has the keys. It is for development and tests.",
		"It never locks: after twelve wrong PINs the right one still opens it.",
	},
	facts: pkcs11.Profile{
		Name: "softhsm",
		// The only path without an intermediate AES key that the host could keep: measured with the attacks of pkcs11/attack_test.go.
		ImportPath: pkcs11.OAEPDirect,
		// C_UnwrapKey refuses every other hash with CKR_ARGUMENTS_BAD (SoftHSM.cpp, MechParamCheckRSAPKCSOAEP). OAEP does
		// not rest on the collision resistance of its hash.
		OAEPHash: "sha1",
		// CKM_AES_KEY_WRAP_PAD of PKCS#11 2.40. PKCS#11 3.0 has another number for RFC 5649, 0x210B,
		// which is not in this module's C_GetMechanismList.
		KWP: 0x210A,
		// CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA of PKCS#11 3.0, which 2.6.1 knows by these numbers; the curve by its
		// object identifier 1.3.101.112 (RFC 8410).
		LogAlgorithm: pkcs11.LogEd25519,
		EdKeyGen:     0x1055,
		EdSign:       0x1057,
		EdParams:     []byte{0x06, 0x03, 0x2b, 0x65, 0x70},
		// Takes the raw point and the DER form alike, and derives 32 bytes whether or not CKA_VALUE_LEN is in the template
		// (light probe). The length is asked for, so that a module that pads or cuts by itself is told.
		Point:    pkcs11.PointRaw,
		ValueLen: true,
		// Object files are never fsynced: a power cut after CKR_OK lost 4,166 of 4,166 keys, with syncfs none of 1,648
		// (design section 4).
		Sync: pkcs11.SyncFolder,
	},
	environment: []string{"SOFTHSM2_CONF", "HOME"}, // softhsm2.conf(5)
	folder:      softHSMFolder,
	list:        softHSMList,
}

// Profiles lists the supported devices.
func Profiles() []Profile { return []Profile{softHSM} }

// FindProfile finds a profile by its name. For an unsupported device the error says why it is not.
func FindProfile(name string) (Profile, error) {
	var known []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		known = append(known, p.Name)
	}
	for _, u := range Unsupported() {
		if u.Name == name {
			return Profile{}, fmt.Errorf("%w: %s: %s", ErrUnsupported, u.Device, u.Reason)
		}
	}
	return Profile{}, fmt.Errorf("%w: no profile is called %q; there is %s", ErrUnsupported, name, strings.Join(known, ", "))
}

// UnsupportedDevice is a device that people ask for and that cannot work.
type UnsupportedDevice struct {
	Name   string `json:"name"`
	Device string `json:"device"`
	Reason string `json:"reason"`
}

// Unsupported lists devices that cannot be a vault's token, and why (design section 10).
func Unsupported() []UnsupportedDevice {
	const (
		noDerive = "its interface has no ECDH derive that gives the raw x-coordinate, which re-encryption is"
		noUnwrap = "it cannot import a private key by C_UnwrapKey, so a re-encryption key would have to reach the host in the clear"
	)
	return []UnsupportedDevice{
		{"cloudhsm", "AWS CloudHSM", noDerive},
		{"google-kms", "Google Cloud KMS", noDerive},
		{"azure-hsm", "Azure Managed HSM", noDerive},
		{"nethsm", "NetHSM", noDerive},
		{"smartcard-hsm", "SmartCard-HSM", noUnwrap},
		{"nitrokey-hsm2", "Nitrokey HSM 2", noUnwrap},
		{"tpm2-pkcs11", "tpm2-pkcs11", noUnwrap},
	}
}

// PKCS11 is the profile as package pkcs11 takes it. module, if not empty, is the library to load instead of the first that
// is found in the usual places.
func (p Profile) PKCS11(module string) (pkcs11.Profile, error) {
	facts := p.facts
	facts.UnwrapWithout, facts.UnwrapWith = slices.Clone(facts.UnwrapWithout), slices.Clone(facts.UnwrapWith)
	facts.EdParams = slices.Clone(facts.EdParams)
	if module == "" {
		if module = p.installed(); module == "" {
			return facts, fmt.Errorf("%w: %s: none of %s exists; install it or name the library with --module",
				ErrModule, p.Vendor, strings.Join(p.Modules, ", "))
		}
	}
	module, err := filepath.Abs(module)
	if err != nil {
		return facts, fmt.Errorf("%w: %w", ErrModule, err)
	}
	if _, err := os.Stat(module); err != nil {
		return facts, fmt.Errorf("%w: %w", ErrModule, err)
	}
	facts.Module = module
	if err := guarded(module); err != nil {
		return facts, err
	}
	if p.folder != nil {
		if facts.Folder, err = p.folder(); err != nil {
			return facts, fmt.Errorf("%w: token folder of %s: %w", ErrModule, p.Name, err)
		}
	}
	return facts, facts.Validate()
}

// spy are the variables of OpenSC's pkcs11-spy, a module that stands before the real one and writes down every call, PINs
// too. They reach a worker in development mode only.
var spy = []string{"PKCS11SPY", "PKCS11SPY_OUTPUT"}

// spied tells whether the environment has a module for pkcs11-spy to stand before. The spy writes a call line by line and without a lock, so calls that
// threads make side by side would be mixed in its trace, and nobody could tell which key was which: a process of a development vault then makes one call at a time.
func spied() bool { return os.Getenv(spy[0]) != "" }

// environ is the environment of a worker.
func (p Profile) environ(development bool) []string {
	names := p.environment
	if development {
		names = slices.Concat(names, spy)
	}
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// installed is the first of the usual places where the library lies, or empty.
func (p Profile) installed() string {
	for _, path := range p.Modules {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// softHSMFolder reads directories.tokendir from the configuration that SoftHSM itself would read: the file that
// SOFTHSM2_CONF names, or ~/.config/softhsm2/softhsm2.conf if there is one, or the system's (softhsm2.conf(5)).
func softHSMFolder() (string, error) {
	path := os.Getenv("SOFTHSM2_CONF")
	if path == "" {
		path = "/etc/softhsm/softhsm2.conf"
		if home, err := os.UserHomeDir(); err == nil {
			if own := filepath.Join(home, ".config/softhsm2/softhsm2.conf"); exists(own) {
				path = own
			}
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(name) != "directories.tokendir" {
			continue
		}
		folder := strings.TrimSpace(value)
		if info, err := os.Stat(folder); err != nil {
			return "", err
		} else if !info.IsDir() {
			return "", fmt.Errorf("%s is not a folder", folder)
		}
		return filepath.Abs(folder)
	}
	return "", fmt.Errorf("%s does not say directories.tokendir", path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
