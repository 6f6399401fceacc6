/*
 * Saved state of a PCI function: its configuration space and MSI-X. What a guest cannot change is saved too, and must
 * be the same in the machine that loads: then it is the same device with the same BARs.
 *
 * Runs with vCPUs stopped and the function quiet.
 */
#include "device/pci_host.h"
#include <errno.h>
#include <string.h>

static const struct field fields[] = {
    STATE_BYTES(struct pci_func_state, config, 1),
    STATE_EACH(struct pci_func_state, msix, addr, 1, FIELD_HEX),
    STATE_EACH(struct pci_func_state, msix, data, 1, FIELD_HEX),
    STATE_EACH(struct pci_func_state, msix, control, 1, FIELD_HEX),
    STATE_HEX(struct pci_func_state, msix_pending, 1),
};
STATE_TABLE(pci_func_table, struct pci_func_state, 1, fields);

static void pre_save(void *opaque)
{
    struct pci_func *f = opaque;

    memset(&f->saved, 0, sizeof(f->saved));
    memcpy(f->saved.config, f->config, sizeof(f->config));
    memcpy(f->saved.msix, f->msix.entry, sizeof(f->msix.entry));
    f->saved.msix_pending = f->msix.pending;
}

static int check(void *opaque, const void *scratch, struct err *err)
{
    const struct pci_func_state *s = scratch;
    const struct pci_func *f = opaque;

    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++)
        if ((s->config[i] ^ f->config[i]) & ~f->writable[i])
            return err_set(err, EINVAL, "%s: was another device (configuration byte 0x%x differs)",
                           f->name, i);
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        if (s->msix[i].control > 1 || (s->msix[i].addr & 3))
            return err_set(err, EINVAL, "%s: MSI-X vector %u cannot be so", f->name, i);
    if (f->msix.vectors < 64 && s->msix_pending >> f->msix.vectors)
        return err_set(err, EINVAL, "%s: an MSI-X vector that does not exist is pending", f->name);
    return 0;
}

static int post_load(void *opaque, struct err *err)
{
    struct pci_func *f = opaque;

    pthread_mutex_lock(&f->host->lock);
    memcpy(f->config, f->saved.config, sizeof(f->config));
    memcpy(f->msix.entry, f->saved.msix, sizeof(f->msix.entry));
    f->msix.pending = f->saved.msix_pending;
    pci_config_changed(f);
    pthread_mutex_unlock(&f->host->lock);
    return 0;
}

int pci_host_register(struct pci_host *h, struct state_set *set, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < ARRAY_LEN(h->func) && !rc; i++) {
        struct pci_func *f = h->func[i];

        if (!f)
            continue;
        f->state = (struct state_entry){.name = "pci",
                                        .instance = i,
                                        .table = &pci_func_table,
                                        .object = &f->saved,
                                        .opaque = f,
                                        .check = check,
                                        .pre_save = pre_save,
                                        .post_load = post_load};
        rc = state_set_add(set, &f->state, err);
        if (!rc && f->ops->register_state)
            rc = f->ops->register_state(f, set, err);
    }
    return rc;
}
