/* Direct calls into a PKCS#11 module for what the Go binding cannot do: pass
 * a PIN without leaving a copy on the C heap, read a value or decrypt into the
 * caller's memory, and read an attribute array. The module is the one the binding has
 * loaded: dlopen hands out the same instance for the same path. */
#ifndef SALLYPORT_CRYPTOKI_SHIM_H
#define SALLYPORT_CRYPTOKI_SHIM_H

typedef struct sp_attribute {
	unsigned long type;
	void *value;
	unsigned long length;
} sp_attribute;

typedef struct sp_module sp_module;

enum { SP_SHORT = 64 }; /* the room for each value of sp_read_short, and how many it reads */

sp_module *sp_load(const char *path);
unsigned long sp_login(sp_module *m, unsigned long session, unsigned long user, unsigned char *pin, unsigned long n);
unsigned long sp_init_pin(sp_module *m, unsigned long session, unsigned char *pin, unsigned long n);
unsigned long sp_init_token(sp_module *m, unsigned long slot, unsigned char *pin, unsigned long n, unsigned char *label);
unsigned long sp_read(sp_module *m, unsigned long session, unsigned long object, unsigned long type, unsigned char *into, unsigned long *length);
unsigned long sp_read_short(sp_module *m, unsigned long session, unsigned long object, unsigned long *types, unsigned long n, unsigned char *into, unsigned long *lengths);
unsigned long sp_decrypt(sp_module *m, unsigned long session, unsigned char *cipher, unsigned long n, unsigned char *into, unsigned long *length);
unsigned long sp_read_array(sp_module *m, unsigned long session, unsigned long object, unsigned long type, sp_attribute **into, unsigned long *count);
void sp_free_array(sp_attribute *a, unsigned long count);

#endif
